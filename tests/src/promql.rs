//! Queries to Prometheus, asked of two scrapes: as much of PromQL as the alerts and the dashboard use. What is beyond that is
//! an error, so that nothing is taken for empty because it was not understood.

mod vector;

use std::collections::BTreeSet;

use anyhow::{Context, Error, Result, bail, ensure};
use promql_parser::label::{MatchOp, Matcher};
use promql_parser::parser::{AggregateExpr, BinaryExpr, Call, Expr, LabelModifier, VectorSelector, parse, token};

use crate::openmetrics::{Labels, Metrics, Sample};
use vector::{Series, compare, grouped, quantile};

/// Two scrapes, and what the clock says at the second one.
pub struct Scrapes {
    /// The first.
    pub before: Metrics,
    /// The second.
    pub after: Metrics,
    /// From one to the other.
    pub seconds: f64,
    /// At the second, since 1970.
    pub now_s: f64,
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// A number.
    Scalar(f64),
    /// Series.
    Vector(Vec<Series>),
}

/// What a query asks for of one metric.
#[derive(Clone, Debug)]
pub struct Selected {
    /// Its name.
    pub metric: String,
    /// What its labels have to be.
    pub matchers: Vec<Matcher>,
}

/// Reads a query.
///
/// # Errors
/// When it is none.
pub fn query(text: &str) -> Result<Expr> {
    parse(text).map_err(Error::msg).with_context(|| format!("reading the query {text}"))
}

/// What a query asks for, and the labels that it groups, joins and leaves out by.
pub fn asks_for(query: &Expr) -> (Vec<Selected>, BTreeSet<String>) {
    let (mut selected, mut labels) = (Vec::new(), BTreeSet::new());
    collect(query, &mut selected, &mut labels);
    (selected, labels)
}

fn collect(query: &Expr, selected: &mut Vec<Selected>, labels: &mut BTreeSet<String>) {
    let mut select = |of: &VectorSelector| {
        selected.push(Selected { metric: of.name.clone().unwrap_or_default(), matchers: of.matchers.matchers.clone() });
    };
    match query {
        Expr::VectorSelector(of) => select(of),
        Expr::MatrixSelector(of) => select(&of.vs),
        Expr::Aggregate(of) => {
            labels.extend(of.modifier.iter().flat_map(|modifier| modifier.labels().labels.clone()));
            of.param.iter().chain([&of.expr]).for_each(|part| collect(part, selected, labels));
        }
        Expr::Binary(of) => {
            let matching = of.modifier.iter().filter_map(|modifier| modifier.matching.as_ref());
            labels.extend(matching.flat_map(|matching| matching.labels().labels.clone()));
            [&of.lhs, &of.rhs].into_iter().for_each(|part| collect(part, selected, labels));
        }
        Expr::Paren(of) => collect(&of.expr, selected, labels),
        Expr::Call(of) => of.args.args.iter().for_each(|part| collect(part, selected, labels)),
        Expr::Unary(of) => collect(&of.expr, selected, labels),
        Expr::Subquery(of) => collect(&of.expr, selected, labels),
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) | Expr::Extension(_) => {}
    }
}

impl Scrapes {
    /// What a query says at the second scrape; every range of time is that between the two.
    ///
    /// # Errors
    /// When the query has something that is not known here.
    pub fn ask(&self, query: &Expr) -> Result<Answer> {
        match query {
            Expr::NumberLiteral(number) => Ok(Answer::Scalar(number.val)),
            Expr::Paren(paren) => self.ask(&paren.expr),
            Expr::VectorSelector(selector) => Ok(Answer::Vector(series(selector, &self.after))),
            Expr::Call(call) => self.call(call),
            Expr::Aggregate(aggregate) => self.aggregate(aggregate),
            Expr::Binary(binary) => self.binary(binary),
            other => bail!("{other} is beyond what is known here"),
        }
    }

    fn vector(&self, query: &Expr) -> Result<Vec<Series>> {
        match self.ask(query)? {
            Answer::Vector(series) => Ok(series),
            Answer::Scalar(_) => bail!("{query} is a number, not series"),
        }
    }

    fn call(&self, call: &Call) -> Result<Answer> {
        let argument = |at: usize| call.args.args.get(at).map(|it| &**it).context("an argument is missing");
        match call.func.name {
            "time" => Ok(Answer::Scalar(self.now_s)),
            "rate" => Ok(Answer::Vector(self.grown(argument(0)?, self.seconds)?)),
            "increase" => Ok(Answer::Vector(self.grown(argument(0)?, 1.0)?)),
            "histogram_quantile" => match self.ask(argument(0)?)? {
                Answer::Scalar(part) => Ok(Answer::Vector(quantile(part, &self.vector(argument(1)?)?)?)),
                Answer::Vector(_) => bail!("a quantile is a number"),
            },
            other => bail!("the function {other} is not known here"),
        }
    }

    /// How much counters grew for each unit of time. One that fell began anew.
    fn grown(&self, query: &Expr, unit: f64) -> Result<Vec<Series>> {
        let Expr::MatrixSelector(matrix) = query else { bail!("{query} has no range") };
        let before = series(&matrix.vs, &self.before);
        let grown = series(&matrix.vs, &self.after).into_iter().filter_map(|now| {
            let was = before.iter().find(|was| was.labels == now.labels)?.value;
            let growth = if now.value >= was { now.value - was } else { now.value };
            Some(Series { value: growth / unit, ..now })
        });
        Ok(grown.collect())
    }

    fn aggregate(&self, aggregate: &AggregateExpr) -> Result<Answer> {
        let series = self.vector(&aggregate.expr)?;
        let by = match &aggregate.modifier {
            Some(LabelModifier::Include(labels)) => labels.labels.clone(),
            None => Vec::new(),
            Some(LabelModifier::Exclude(_)) => bail!("`without` is not known here"),
        };
        let fold: fn(&[f64]) -> f64 = match aggregate.op.id() {
            token::T_SUM => |values| values.iter().sum(),
            token::T_MAX => |values| values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            token::T_COUNT => |values| values.len() as f64,
            // Those with most are some of all: enough to see whether there are any.
            token::T_TOPK => return Ok(Answer::Vector(series)),
            _ => bail!("the aggregation {} is not known here", aggregate.op),
        };
        Ok(Answer::Vector(grouped(&series, &by, fold)))
    }

    fn binary(&self, binary: &BinaryExpr) -> Result<Answer> {
        ensure!(!binary.return_bool(), "`bool` is not known here");
        let (op, ignored) = (binary.op.id(), ignored(binary)?);
        let answer = match (self.ask(&binary.lhs)?, self.ask(&binary.rhs)?) {
            (Answer::Scalar(one), Answer::Scalar(other)) => {
                return Ok(Answer::Scalar(calculate(op, one, other).context("no calculation of numbers")?));
            }
            (Answer::Vector(series), Answer::Scalar(number)) => pairs(series, |_| Some(number), op),
            (Answer::Scalar(number), Answer::Vector(series)) => {
                let swapped = series.into_iter().map(|it| (it.labels.clone(), number, it.value));
                combine(swapped, op)
            }
            (Answer::Vector(series), Answer::Vector(others)) => {
                let key = |labels: &Labels| -> Labels {
                    labels
                        .iter()
                        .filter(|(name, _)| !ignored.contains(name))
                        .map(|(a, b)| (a.clone(), b.clone()))
                        .collect()
                };
                let other =
                    |labels: &Labels| others.iter().find(|other| key(&other.labels) == key(labels)).map(|it| it.value);
                match op {
                    token::T_LAND => Ok(series.into_iter().filter(|it| other(&it.labels).is_some()).collect()),
                    _ => pairs(series, other, op),
                }
            }
        };
        Ok(Answer::Vector(answer?))
    }
}

/// The labels that two sides may differ in.
fn ignored(binary: &BinaryExpr) -> Result<Vec<String>> {
    match binary.modifier.as_ref().and_then(|modifier| modifier.matching.as_ref()) {
        None => Ok(Vec::new()),
        Some(LabelModifier::Exclude(labels)) => Ok(labels.labels.clone()),
        Some(LabelModifier::Include(_)) => bail!("`on` is not known here"),
    }
}

fn series(selector: &VectorSelector, metrics: &Metrics) -> Vec<Series> {
    let is_meant = |sample: &&Sample| {
        let value = |matcher: &Matcher| sample.labels.get(&matcher.name).map_or("", String::as_str);
        Some(&sample.name) == selector.name.as_ref()
            && selector.matchers.matchers.iter().all(|matcher| matcher.is_match(value(matcher)))
    };
    let meant = metrics.samples.iter().filter(is_meant);
    meant.map(|sample| Series { labels: sample.labels.clone(), value: sample.value }).collect()
}

fn pairs(series: Vec<Series>, other: impl Fn(&Labels) -> Option<f64>, op: token::TokenId) -> Result<Vec<Series>> {
    combine(series.into_iter().filter_map(|it| Some((it.labels.clone(), it.value, other(&it.labels)?))), op)
}

/// Calculations change values, comparisons keep the series for which they hold.
fn combine(values: impl Iterator<Item = (Labels, f64, f64)>, op: token::TokenId) -> Result<Vec<Series>> {
    let mut combined = Vec::new();
    for (labels, one, other) in values {
        match (calculate(op, one, other), compare(op, one, other)) {
            (Some(value), _) => combined.push(Series { labels, value }),
            (None, Some(true)) => combined.push(Series { labels, value: one }),
            (None, Some(false)) => {}
            (None, None) => bail!("an operator is not known here"),
        }
    }
    Ok(combined)
}

fn calculate(op: token::TokenId, one: f64, other: f64) -> Option<f64> {
    match op {
        token::T_ADD => Some(one + other),
        token::T_SUB => Some(one - other),
        token::T_MUL => Some(one * other),
        token::T_DIV => Some(one / other),
        _ => None,
    }
}

/// The words that a matcher asks for, one of which the label has to be; none: it excludes, or takes more than words.
pub fn words(matcher: &Matcher) -> Vec<String> {
    let is_word = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '/');
    match &matcher.op {
        MatchOp::Equal => vec![matcher.value.clone()],
        MatchOp::Re(_) if matcher.value.split('|').all(is_word) => matcher.value.split('|').map(String::from).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
