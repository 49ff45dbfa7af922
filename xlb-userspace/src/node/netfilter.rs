//! What others have told netfilter on this node: names of tables and chains, and the addresses that kube-proxy's rules are for.
//! Only `xlb doctor` asks.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::{Context, Result};

use super::ask::{ask, attribute, attributes, text, written};
use super::legacy_tables;

/// `NETLINK_NETFILTER` (include/uapi/linux/netlink.h).
const NETLINK_NETFILTER: isize = 12;
/// `NFNL_SUBSYS_NFTABLES` and what is asked of it (include/uapi/linux/netfilter/nf_tables.h).
const NFTABLES: u16 = 10 << 8;
const GET_TABLE: u16 = NFTABLES | 1;
const GET_CHAIN: u16 = NFTABLES | 4;
const GET_RULE: u16 = NFTABLES | 7;
const GET_SET_ELEMENTS: u16 = NFTABLES | 13;
/// `struct nfgenmsg`, in bytes: it begins with the family.
const GENERIC_HEADER: usize = 4;
const FAMILIES: [(u8, usize); 2] = [(2, 4), (10, 16)];
/// `NFTA_TABLE_NAME`, `NFTA_CHAIN_TABLE`, `NFTA_CHAIN_NAME`, `NFTA_RULE_TABLE`, `NFTA_RULE_CHAIN`, `NFTA_RULE_EXPRESSIONS`.
const TABLE_NAME: u16 = 1;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
/// `NFTA_EXPR_NAME` and `NFTA_EXPR_DATA`, and of a comparison `NFTA_CMP_DATA`, which holds `NFTA_DATA_VALUE`.
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const COMPARED: u16 = 3;
const VALUE: u16 = 1;
/// `NFTA_SET_ELEM_LIST_TABLE`, `_SET` and `_ELEMENTS`, and in an element `NFTA_SET_ELEM_KEY`.
const SET_TABLE: u16 = 1;
const SET_NAME: u16 = 2;
const SET_ELEMENTS: u16 = 3;
const ELEMENT_KEY: u16 = 1;

/// The table and the map of kube-proxy's mode nftables: address, protocol and port of each service.
pub const KUBE_PROXY_TABLE: &str = "kube-proxy";
const KUBE_PROXY_SERVICES: &str = "service-ips";
/// The chain of kube-proxy's mode iptables, in the table `nat`.
pub const KUBE_SERVICES: &str = "KUBE-SERVICES";

/// Whose a chain is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Backend {
    /// nftables, by itself or as iptables' backend.
    Nftables,
    /// iptables of before nftables.
    Legacy,
}

/// What netfilter was told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// Tables of nftables.
    pub tables: BTreeSet<String>,
    /// Chains, by whose they are.
    pub chains: BTreeSet<(Backend, String)>,
    /// Addresses that kube-proxy's rules are for.
    pub kube_proxy: BTreeSet<IpAddr>,
}

impl Ruleset {
    /// Reads it, for the calling thread's network namespace.
    ///
    /// # Errors
    /// When the kernel refuses: it takes CAP_NET_ADMIN.
    pub fn read() -> Result<Self> {
        let mut ruleset = Self::default();
        // A kernel without nftables has none of its tables.
        for table in ask(NETLINK_NETFILTER, GET_TABLE, true, &header(0)).unwrap_or_default() {
            ruleset.tables.extend(attribute(part(&table), TABLE_NAME).map(text));
        }
        if !ruleset.tables.is_empty() {
            ruleset.read_nftables().context("reading nftables")?;
        }
        let legacy = legacy_tables::read().context("reading iptables (legacy)")?;
        ruleset.chains.extend(legacy.chains.into_iter().map(|chain| (Backend::Legacy, chain)));
        ruleset.kube_proxy.extend(legacy.kube_proxy);
        Ok(ruleset)
    }

    fn read_nftables(&mut self) -> Result<()> {
        let mut is_iptables = false;
        for chain in ask(NETLINK_NETFILTER, GET_CHAIN, true, &header(0))? {
            let of = |kind| attribute(part(&chain), kind).map(text);
            let (table, name) = (of(CHAIN_TABLE), of(CHAIN_NAME));
            is_iptables |= table.as_deref() == Some("nat") && name.as_deref() == Some(KUBE_SERVICES);
            self.chains.extend(name.map(|name| (Backend::Nftables, name)));
        }
        for (family, width) in FAMILIES {
            if is_iptables {
                let of = [written(RULE_TABLE, b"nat\0"), written(RULE_CHAIN, &zero_ended(KUBE_SERVICES))].concat();
                let rules = ask(NETLINK_NETFILTER, GET_RULE, true, &[&header(family)[..], &of].concat());
                // The chain may be there for one family alone.
                let rules = rules.unwrap_or_default();
                self.kube_proxy.extend(rules.iter().flat_map(|rule| compared(part(rule), width)));
            }
            if self.tables.contains(KUBE_PROXY_TABLE) {
                let of = [
                    written(SET_TABLE, &zero_ended(KUBE_PROXY_TABLE)),
                    written(SET_NAME, &zero_ended(KUBE_PROXY_SERVICES)),
                ];
                let elements =
                    ask(NETLINK_NETFILTER, GET_SET_ELEMENTS, true, &[&header(family)[..], &of.concat()].concat());
                let elements = elements.unwrap_or_default();
                self.kube_proxy.extend(elements.iter().flat_map(|some| keys(part(some), width)));
            }
        }
        Ok(())
    }
}

fn header(family: u8) -> [u8; GENERIC_HEADER] {
    [family, 0, 0, 0]
}

fn part(message: &[u8]) -> &[u8] {
    message.get(GENERIC_HEADER..).unwrap_or_default()
}

fn zero_ended(text: &str) -> Vec<u8> {
    text.bytes().chain([0]).collect()
}

/// What a rule compares with, where it is as wide as an address.
fn compared(rule: &[u8], width: usize) -> Vec<IpAddr> {
    let expressions = attribute(rule, RULE_EXPRESSIONS).into_iter().flat_map(attributes);
    let comparisons = expressions.filter(|(_, it)| attribute(it, EXPRESSION_NAME).map(text).as_deref() == Some("cmp"));
    let values = comparisons
        .filter_map(|(_, expression)| attribute(attribute(attribute(expression, EXPRESSION_DATA)?, COMPARED)?, VALUE));
    values.filter(|value| value.len() == width).filter_map(address).collect()
}

/// The addresses that the keys of a set's elements begin with.
fn keys(elements: &[u8], width: usize) -> Vec<IpAddr> {
    let all = attribute(elements, SET_ELEMENTS).into_iter().flat_map(attributes);
    let keys = all.filter_map(|(_, element)| attribute(attribute(element, ELEMENT_KEY)?, VALUE));
    keys.filter_map(|key| address(key.get(..width)?)).collect()
}

pub(super) fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}
