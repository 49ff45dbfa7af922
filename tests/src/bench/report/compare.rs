//! `--compare FILE`: an earlier run of the same bench, beside this one.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

/// What a run printed with `-o json`.
#[derive(Clone, Debug, PartialEq)]
pub struct Earlier {
    file: String,
    env: Value,
    medians: Vec<Median>,
}

/// The figure of one row.
#[derive(Clone, Debug, PartialEq)]
struct Median {
    name: String,
    unit: String,
    /// None: the run had no figure for it.
    value: Option<f64>,
}

/// What the earlier run says of a row of this one.
enum Beside<'a> {
    /// Its figure, and by what factor this run's is another.
    Both(&'a Median, Option<f64>),
    OnlyNow,
}

impl Earlier {
    /// Reads the file.
    pub fn read(path: &Path) -> Result<Earlier> {
        let file = path.display().to_string();
        let text = fs::read_to_string(path).with_context(|| format!("reading {file}, the run to compare with"))?;
        Earlier::parse(&file, &text)
    }

    fn parse(file: &str, text: &str) -> Result<Earlier> {
        let advice = || {
            format!(
                "{file} is not what a bench has printed as JSON: make such a file with `cargo xtask bench … -o json > FILE`, \
                 then compare with that"
            )
        };
        let object: Value = serde_json::from_str(text).with_context(advice)?;
        let medians = medians(&object).with_context(advice)?;
        Ok(Earlier { file: file.to_owned(), env: object["env"].clone(), medians })
    }

    /// A table of this run, a line of names and then one for each row of `object`, with two columns more, and below it what
    /// only the earlier run has.
    ///
    /// # Errors
    /// When `object` is not this run's, as for `-o json`.
    pub fn beside(&self, table: &str, object: &Value) -> Result<String> {
        let now = medians(object)?;
        let names = [format!(" | {:>10} {:>8}", "earlier", "change")];
        let columns = names.into_iter().chain(now.iter().map(|median| self.look_up(median).columns()));
        let columns: Vec<String> = columns.collect();
        let width = table.lines().take(columns.len()).map(|line| line.chars().count()).max().unwrap_or_default();
        let mut columns = columns.into_iter();
        let line = |line: &str| {
            columns.next().map_or(line.to_owned(), |column| format!("{line:<width$}{column}").trim_end().to_owned())
        };
        let mut lines: Vec<String> = table.lines().map(line).collect();
        lines.extend(["".to_owned(), format!("earlier: {}, {}", self.file, super::one_line(&self.env))]);
        lines.extend(self.only_earlier(&now).map(|median| {
            let value = median.value.map_or(String::new(), |value| format!(": {value:.2} {}", median.unit));
            format!("only earlier: {}{value}", median.name)
        }));
        Ok(lines.join("\n"))
    }

    /// The object of `-o json` with `earlier` and `change` in each row, and the rows that only one run has.
    ///
    /// # Errors
    /// As for [`Self::beside`].
    pub fn added_to(&self, mut object: Value) -> Result<Value> {
        let now = medians(&object)?;
        let mut only_now = Vec::new();
        for (row, median) in object["rows"].as_array_mut().into_iter().flatten().zip(&now) {
            let (earlier, change) = match self.look_up(median) {
                Beside::Both(earlier, change) => (earlier.value, change),
                Beside::OnlyNow => {
                    only_now.push(&median.name);
                    (None, None)
                }
            };
            (row["earlier"], row["change"]) = (json!(earlier), json!(change));
        }
        let only_earlier: Vec<&String> = self.only_earlier(&now).map(|median| &median.name).collect();
        object["earlier"] =
            json!({ "file": self.file, "env": self.env, "only_now": only_now, "only_earlier": only_earlier });
        Ok(object)
    }

    fn look_up(&self, now: &Median) -> Beside<'_> {
        let Some(earlier) = self.medians.iter().find(|earlier| earlier.is_of_row(now)) else { return Beside::OnlyNow };
        let divisor = earlier.value.filter(|value| *value > 0.0);
        Beside::Both(earlier, now.value.zip(divisor).map(|(now, earlier)| now / earlier))
    }

    fn only_earlier<'a>(&'a self, now: &'a [Median]) -> impl Iterator<Item = &'a Median> {
        self.medians.iter().filter(move |earlier| !now.iter().any(|now| earlier.is_of_row(now)))
    }
}

impl Median {
    /// Figures of different units are of different rows, whatever these are called.
    fn is_of_row(&self, other: &Median) -> bool {
        (&self.name, &self.unit) == (&other.name, &other.unit)
    }
}

impl Beside<'_> {
    fn columns(&self) -> String {
        let (earlier, change) = match self {
            Beside::Both(median, change) => (median.value.map(|value| format!("{value:.2}")), *change),
            Beside::OnlyNow => (Some("only now".to_owned()), None),
        };
        let change = change.map_or(String::new(), |change| format!("{change:.2}"));
        format!(" | {:>10} {change:>8}", earlier.unwrap_or_default())
    }
}

/// The figures of an object of `-o json`.
fn medians(object: &Value) -> Result<Vec<Median>> {
    let rows = object["rows"].as_array().context("it has no list `rows`")?;
    let text = |row: &Value, field: &str| {
        row[field].as_str().map(str::to_owned).with_context(|| format!("`{field}` of a row is no text: {row}"))
    };
    let median = |row: &Value| {
        let value = row.get("median").with_context(|| format!("a row has no `median`: {row}"))?.as_f64();
        Ok(Median { name: text(row, "name")?, unit: text(row, "unit")?, value })
    };
    rows.iter().map(median).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_says_what_it_was_and_by_what_factor_it_changed() {
        let table = earlier().beside("name     ns\na       3.0\nlonger 12.0\n\nmore", &now()).unwrap();
        let expected = "\
name     ns |    earlier   change
a       3.0 |       2.00     1.50
longer 12.0 |   only now

more

earlier: old.json, build debug, kernel 6.18
only earlier: gone: 7.00 ns
only earlier: longer: 1.00 ms
only earlier: none";
        assert_eq!(table, expected);
    }

    #[test]
    fn json_has_the_same_and_lists_what_only_one_run_has() {
        let object = earlier().added_to(now()).unwrap();
        let [row, new] = [&object["rows"][0], &object["rows"][1]];
        assert_eq!((&row["median"], &row["earlier"], &row["change"]), (&json!(3.0), &json!(2.0), &json!(1.5)));
        assert_eq!((&new["earlier"], &new["change"]), (&Value::Null, &Value::Null));
        let only = json!([object["earlier"]["only_now"], object["earlier"]["only_earlier"]]);
        assert_eq!(only, json!([["longer"], ["gone", "longer", "none"]]));
        assert_eq!(object["earlier"]["file"], "old.json");
    }

    #[test]
    fn what_was_nothing_has_no_factor() {
        for was in [json!(0.0), Value::Null] {
            let text = json!({ "env": {}, "rows": [row("a", "ns", was)] }).to_string();
            let object = Earlier::parse("old.json", &text).unwrap().added_to(now()).unwrap();
            assert_eq!(object["rows"][0]["change"], Value::Null);
        }
    }

    #[test]
    fn what_came_with_a_comparison_can_be_compared_with() {
        let text = earlier().added_to(now()).unwrap().to_string();
        let again = Earlier::parse("new.json", &text).unwrap().added_to(now()).unwrap();
        assert_eq!(again["rows"][1]["change"], 1.0);
    }

    #[test]
    fn a_file_that_is_no_run_is_named_with_what_to_do() {
        let bad = ["", "ns per packet, net  median", "[]", "{}", r#"{"rows": [{"name": "a", "unit": "ns"}]}"#];
        for text in bad {
            let error = format!("{:#}", Earlier::parse("old.txt", text).unwrap_err());
            assert!(error.starts_with("old.txt is not") && error.contains("-o json > FILE"), "{error}");
        }
        let error = format!("{:#}", Earlier::read(Path::new("no/such.json")).unwrap_err());
        assert!(error.contains("no/such.json") && error.contains("compare"), "{error}");
    }

    fn earlier() -> Earlier {
        let rows = [
            row("a", "ns", json!(2.0)),
            row("gone", "ns", json!(7.0)),
            row("longer", "ms", json!(1.0)),
            row("none", "ns", Value::Null),
        ];
        let env = json!({ "kernel": "6.18", "build": "debug" });
        Earlier::parse("old.json", &json!({ "env": env, "rows": rows }).to_string()).unwrap()
    }

    fn now() -> Value {
        json!({ "env": {}, "rows": [row("a", "ns", json!(3.0)), row("longer", "ns", json!(12.0))] })
    }

    fn row(name: &str, unit: &str, median: Value) -> Value {
        json!({ "name": name, "unit": unit, "median": median })
    }
}
