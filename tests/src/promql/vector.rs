//! What is done with series.

use anyhow::{Context, Result};
use promql_parser::parser::token;

use crate::openmetrics::Labels;

/// A series at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Its labels.
    pub labels: Labels,
    /// Its value.
    pub value: f64,
}

/// Series that agree in these labels, as one.
pub fn grouped(series: &[Series], by: &[String], fold: fn(&[f64]) -> f64) -> Vec<Series> {
    let mut groups: Vec<(Labels, Vec<f64>)> = Vec::new();
    for it in series {
        let kept = it.labels.iter().filter(|(name, _)| by.contains(name));
        let labels: Labels = kept.map(|(name, value)| (name.clone(), value.clone())).collect();
        match groups.iter_mut().find(|(known, _)| *known == labels) {
            Some((_, values)) => values.push(it.value),
            None => groups.push((labels, vec![it.value])),
        }
    }
    groups.into_iter().map(|(labels, values)| Series { labels, value: fold(&values) }).collect()
}

/// The bound below which this part of all lies: that of its bucket, which is as exact as an alert needs. Of what lies beyond the
/// last bound, that bound, as in Prometheus.
pub fn quantile(part: f64, buckets: &[Series]) -> Result<Vec<Series>> {
    let mut of: Vec<(Labels, Vec<(f64, f64)>)> = Vec::new();
    for bucket in buckets {
        let mut labels = bucket.labels.clone();
        let bound = labels.remove("le").context("a bucket without le")?;
        let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().context("le is no number")? };
        match of.iter_mut().find(|(known, _)| *known == labels) {
            Some((_, bounds)) => bounds.push((bound, bucket.value)),
            None => of.push((labels, vec![(bound, bucket.value)])),
        }
    }
    let quantiles = of.into_iter().filter_map(|(labels, mut bounds)| {
        bounds.sort_by(|one, other| one.0.total_cmp(&other.0));
        let all = bounds.last()?.1;
        let last = bounds.iter().rev().find(|(bound, _)| bound.is_finite())?.0;
        let found = bounds.iter().find(|(_, count)| *count >= part * all)?.0;
        // Nothing happened: no number.
        (all > 0.0).then(|| Series { labels, value: found.min(last) })
    });
    Ok(quantiles.collect())
}

/// Whether a comparison holds; none: it is none.
pub fn compare(op: token::TokenId, one: f64, other: f64) -> Option<bool> {
    match op {
        token::T_GTR => Some(one > other),
        token::T_GTE => Some(one >= other),
        token::T_LSS => Some(one < other),
        token::T_LTE => Some(one <= other),
        token::T_EQLC => Some(one == other),
        token::T_NEQ => Some(one != other),
        _ => None,
    }
}
