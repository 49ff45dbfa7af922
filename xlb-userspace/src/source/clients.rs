//! What a Service asks of its clients: where they come from, and how long they stay with a pod.

use std::collections::BTreeSet;

use ipnet::IpNet;
use k8s_openapi::api::core::v1 as core;

use super::address::parse_range;
use super::translate::{FieldError, field_error, or_report};

/// How long affinity lasts without a word about it, in seconds (semantics 9.2).
const AFFINITY_DEFAULT_S: u32 = 10_800;
/// How long it lasts at most: a day.
const AFFINITY_MAX_S: u32 = 86_400;

/// What can be read of the ranges; none if none are listed.
pub(super) fn source_ranges(texts: &[String], errors: &mut Vec<FieldError>) -> Option<BTreeSet<IpNet>> {
    if texts.is_empty() {
        return None;
    }
    let read = |(index, text): (usize, &String)| {
        let field = || format!("spec.loadBalancerSourceRanges[{index}]");
        or_report(parse_range(text).map_err(|why| field_error(field(), why)), errors)
    };
    Some(texts.iter().enumerate().filter_map(read).collect())
}

/// How long `sessionAffinity: ClientIP` lasts, in seconds; none: there is no affinity.
pub(super) fn affinity_s(
    affinity: Option<&str>,
    config: Option<&core::SessionAffinityConfig>,
    errors: &mut Vec<FieldError>,
) -> Option<u32> {
    if !or_report(wants_affinity(affinity), errors)? {
        return None;
    }
    let given = config.and_then(|config| config.client_ip.as_ref()).and_then(|client_ip| client_ip.timeout_seconds);
    let Some(given) = given else { return Some(AFFINITY_DEFAULT_S) };
    let in_range = u32::try_from(given).ok().filter(|seconds| (1..=AFFINITY_MAX_S).contains(seconds));
    if in_range.is_none() {
        let why = format!("found {given}, expected 1 to {AFFINITY_MAX_S} seconds");
        errors.push(field_error("spec.sessionAffinityConfig.clientIP.timeoutSeconds", why));
    }
    Some(in_range.unwrap_or(AFFINITY_DEFAULT_S))
}

fn wants_affinity(text: Option<&str>) -> Result<bool, FieldError> {
    match text {
        None | Some("" | "None") => Ok(false),
        Some("ClientIP") => Ok(true),
        Some(other) => Err(field_error("spec.sessionAffinity", format!("found {other:?}, expected ClientIP or None"))),
    }
}
