//! A strict reader of the OpenMetrics text format 1.0: what it accepts, any scraper does.
//!
//! It checks the grammar (one metric family after the other, each described before its samples, labels escaped, an end)
//! and what the specification asks of counters, gauges, histograms, infos and units.

use std::collections::{BTreeMap, BTreeSet};

/// Labels in the order of their names.
pub type Labels = BTreeMap<String, String>;

/// A sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Its name, with the suffix of its kind.
    pub name: String,
    /// Its labels.
    pub labels: Labels,
    /// Its value.
    pub value: f64,
}

/// All samples of a text.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// In their order.
    pub samples: Vec<Sample>,
}

impl Metrics {
    /// The value of the sample with this name and exactly these labels.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels: Labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.samples.iter().find(|sample| sample.name == name && sample.labels == labels).map(|sample| sample.value)
    }

    /// The sum of all samples with this name.
    pub fn sum(&self, name: &str) -> f64 {
        self.samples.iter().filter(|sample| sample.name == name).map(|sample| sample.value).sum()
    }
}

/// Reads a text, or says what is wrong with which line.
pub fn parse(text: &str) -> Result<Metrics, String> {
    let body = text.strip_suffix("# EOF\n").ok_or("the text does not end with \"# EOF\\n\"")?;
    let mut reader = Reader::default();
    for (index, line) in body.split_terminator('\n').enumerate() {
        reader.line(line).map_err(|why| format!("line {}: {why}: {line:?}", index + 1))?;
    }
    reader.end_family()?;
    Ok(Metrics { samples: reader.samples })
}

#[derive(Default)]
struct Reader {
    finished: BTreeSet<String>,
    family: Option<Family>,
    series: BTreeSet<(String, Vec<(String, String)>)>,
    samples: Vec<Sample>,
}

#[derive(Default)]
struct Family {
    name: String,
    kind: Option<String>,
    unit: Option<String>,
    has_help: bool,
    samples: Vec<Sample>,
}

impl Reader {
    fn line(&mut self, line: &str) -> Result<(), String> {
        match line.strip_prefix("# ") {
            Some(descriptor) => self.descriptor(descriptor),
            None if line.starts_with('#') || line.is_empty() => Err("it is neither descriptor nor sample".into()),
            None => self.sample(line),
        }
    }

    fn descriptor(&mut self, line: &str) -> Result<(), String> {
        let mut words = line.splitn(3, ' ');
        let (Some(word), Some(name), Some(text)) = (words.next(), words.next(), words.next()) else {
            return Err("a descriptor has a name and a text".into());
        };
        check_metric_name(name)?;
        if self.family.as_ref().is_none_or(|family| family.name != name) {
            self.end_family()?;
            if self.finished.contains(name) {
                return Err("the family was there before".into());
            }
            self.family = Some(Family { name: name.into(), ..Family::default() });
        }
        let Some(family) = &mut self.family else { return Err("no family".into()) };
        if !family.samples.is_empty() {
            return Err("a descriptor behind a sample of its family".into());
        }
        let is_first = match word {
            "TYPE" => family.kind.replace(text.into()).is_none(),
            "UNIT" => family.unit.replace(text.into()).is_none(),
            "HELP" => {
                unescape(text)?;
                !std::mem::replace(&mut family.has_help, true)
            }
            _ => return Err("a descriptor is TYPE, UNIT or HELP".into()),
        };
        if is_first { Ok(()) } else { Err("the same descriptor twice".into()) }
    }

    fn sample(&mut self, line: &str) -> Result<(), String> {
        let sample = sample(line)?;
        let family = self.family.as_mut().ok_or("a sample without a family")?;
        family.check_sample(&sample)?;
        let labels: Vec<_> = sample.labels.clone().into_iter().collect();
        if !self.series.insert((sample.name.clone(), labels)) {
            return Err("the same series twice".into());
        }
        family.samples.push(sample.clone());
        self.samples.push(sample);
        Ok(())
    }

    fn end_family(&mut self) -> Result<(), String> {
        let Some(family) = self.family.take() else { return Ok(()) };
        family.check_whole().map_err(|why| format!("family {}: {why}", family.name))?;
        self.finished.insert(family.name);
        Ok(())
    }
}

impl Family {
    fn check_sample(&self, sample: &Sample) -> Result<(), String> {
        let suffix = sample.name.strip_prefix(&self.name).ok_or("a sample of another family")?;
        let is_count = sample.value >= 0.0 && sample.value.is_finite();
        match (self.kind.as_deref().unwrap_or("unknown"), suffix) {
            ("counter", "_total" | "_created") | ("histogram", "_count" | "_sum" | "_created") if is_count => Ok(()),
            ("histogram", "_bucket") if is_count && sample.labels.contains_key("le") => Ok(()),
            ("gauge" | "unknown", "") => Ok(()),
            ("info", "_info") if sample.value == 1.0 => Ok(()),
            (kind, _) => Err(format!("no sample of a {kind}")),
        }
    }

    fn check_whole(&self) -> Result<(), String> {
        if !self.has_help || self.kind.is_none() {
            return Err("it lacks TYPE or HELP".into());
        }
        if let Some(unit) = self.unit.as_deref().filter(|unit| !unit.is_empty())
            && !self.name.ends_with(&format!("_{unit}"))
        {
            return Err(format!("its name does not end with its unit {unit}"));
        }
        if self.kind.as_deref() == Some("counter") && self.name.ends_with("_total") {
            return Err("_total belongs to the samples of a counter".into());
        }
        if self.kind.as_deref() == Some("histogram") { self.check_histogram() } else { Ok(()) }
    }

    /// Bounds grow up to +Inf, counts never fall, and the last one is the count of all.
    fn check_histogram(&self) -> Result<(), String> {
        let mut buckets: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
        for sample in self.samples.iter().filter(|sample| sample.name.ends_with("_bucket")) {
            let mut labels = sample.labels.clone();
            let bound = labels.remove("le").as_deref().map(number).ok_or("no le")??;
            buckets.entry(labels).or_default().push((bound, sample.value));
        }
        for (labels, buckets) in buckets {
            let grows = buckets.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1);
            let last = buckets.last().copied().unwrap_or_default();
            let of = |suffix: &str| {
                let name = format!("{}{suffix}", self.name);
                self.samples.iter().find(|sample| sample.name == name && sample.labels == labels)
            };
            let count = of("_count").ok_or("no _count")?.value;
            of("_sum").ok_or("no _sum")?;
            if !grows || last != (f64::INFINITY, count) {
                return Err(format!("its buckets {labels:?} do not grow to the count of all"));
            }
        }
        Ok(())
    }
}

fn sample(line: &str) -> Result<Sample, String> {
    let end = line.find(['{', ' ']).ok_or("a sample has a value")?;
    let (name, rest) = line.split_at(end);
    check_metric_name(name)?;
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (Labels::new(), rest),
    };
    let value = rest.strip_prefix(' ').ok_or("one blank before the value")?;
    Ok(Sample { name: name.into(), labels, value: number(value)? })
}

/// The labels up to the closing brace, and what follows it.
fn labels(mut rest: &str) -> Result<(Labels, &str), String> {
    let mut labels = Labels::new();
    if let Some(behind) = rest.strip_prefix('}') {
        return Ok((labels, behind));
    }
    loop {
        let (name, behind) = rest.split_once("=\"").ok_or("a label is name=\"value\"")?;
        check_label_name(name)?;
        let end = closing_quote(behind).ok_or("a label's value has no end")?;
        if labels.insert(name.into(), unescape(&behind[..end])?).is_some() {
            return Err(format!("the label {name} twice"));
        }
        let behind = &behind[end + 1..];
        match (behind.strip_prefix(','), behind.strip_prefix('}')) {
            (Some(next), _) => rest = next,
            (_, Some(end)) => return Ok((labels, end)),
            _ => return Err("labels are separated by commas and end with a brace".into()),
        }
    }
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut is_escaped = false;
    text.char_indices().find_map(|(at, character)| {
        let ends = character == '"' && !is_escaped;
        is_escaped = character == '\\' && !is_escaped;
        ends.then_some(at)
    })
}

/// A backslash stands before a backslash, a quote or an n, and nowhere else.
fn unescape(text: &str) -> Result<String, String> {
    let mut plain = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        plain.push(match (character, character == '\\') {
            (_, true) => match characters.next() {
                Some('n') => '\n',
                Some(escaped @ ('\\' | '"')) => escaped,
                other => return Err(format!("a backslash before {other:?}")),
            },
            (character, false) => character,
        });
    }
    Ok(plain)
}

fn number(text: &str) -> Result<f64, String> {
    match text {
        "+Inf" => Ok(f64::INFINITY),
        "-Inf" => Ok(f64::NEG_INFINITY),
        "NaN" => Ok(f64::NAN),
        _ if text.starts_with(|first: char| first.is_ascii_digit() || "+-.".contains(first)) => {
            text.parse().map_err(|_| format!("{text:?} is no number"))
        }
        _ => Err(format!("{text:?} is no number")),
    }
}

fn check_metric_name(name: &str) -> Result<(), String> {
    let is_name = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':');
    let is_good = is_name(name) && name.starts_with(|c: char| !c.is_ascii_digit());
    if is_good { Ok(()) } else { Err(format!("{name:?} is no name of a metric")) }
}

fn check_label_name(name: &str) -> Result<(), String> {
    check_metric_name(name)?;
    if name.contains(':') { Err(format!("{name:?} is no name of a label")) } else { Ok(()) }
}
