//! Facts about answers.

use super::*;

fn scrapes() -> Scrapes {
    let text = |requests: u32, slow: u32| {
        format!(
            "# HELP r Requests.\n# TYPE r counter\nr_total{{a=\"1\",b=\"x\"}} {requests}\nr_total{{a=\"2\",b=\"x\"}} 5\n\
             # HELP d Time.\n# TYPE d histogram\nd_bucket{{le=\"1\"}} 90\nd_bucket{{le=\"2\"}} {}\nd_bucket{{le=\"+Inf\"}} {}\nd_sum 1\nd_count {}\n\
             # HELP g Gauge.\n# TYPE g gauge\ng{{m=\"F\"}} 9\ng{{m=\"P\"}} 10\n# HELP c Room.\n# TYPE c gauge\nc{{m=\"F\"}} 10\nc{{m=\"P\"}} 10\n# EOF\n",
            90 + slow,
            90 + slow,
            90 + slow
        )
    };
    let parse = |text: String| crate::openmetrics::parse(&text).expect("a scrape");
    Scrapes { before: parse(text(10, 0)), after: parse(text(40, 9)), seconds: 10.0, now_s: 100.0 }
}

#[test]
fn queries_are_answered_as_prometheus_would() {
    for (text, expected) in [
        ("g", &[9.0, 10.0][..]),
        ("g{m=\"F\"}", &[9.0]),
        ("g{m!~\"P.*\"} / c > 0.8", &[0.9]),
        ("g / c > 0.9", &[1.0]),
        ("rate(r_total[5m])", &[3.0, 0.0]),
        ("increase(r_total{a=\"1\"}[1h])", &[30.0]),
        ("sum by (b) (rate(r_total[5m]))", &[3.0]),
        ("sum(r_total)", &[45.0]),
        ("count by (b) (r_total)", &[2.0]),
        ("max(r_total)", &[40.0]),
        ("time() - g > 90.5", &[91.0]),
        ("histogram_quantile(0.99, rate(d_bucket[5m]))", &[2.0]),
        ("rate(r_total{a=\"1\"}[5m]) > 1 and ignoring (a) rate(r_total{a=\"2\"}[5m]) == 0", &[3.0]),
        ("rate(r_total{a=\"1\"}[5m]) > 1 and rate(r_total{a=\"2\"}[5m]) == 0", &[]),
        ("rate(nothing[5m]) > 0", &[]),
    ] {
        let answer = scrapes().ask(&query(text).expect("a query")).expect(text);
        let Answer::Vector(series) = answer else { panic!("{text}: {answer:?}") };
        assert_eq!(series.iter().map(|it| it.value).collect::<Vec<_>>(), expected, "{text}");
    }
}

#[test]
fn what_is_not_understood_is_no_empty_answer() {
    for text in ["absent(g)", "avg(g)", "g or c", "sum without (m) (g)", "g offset 5m unless c", "-g"] {
        assert!(scrapes().ask(&query(text).expect("a query")).is_err(), "{text}");
    }
    assert!(query("sum(").is_err());
}

#[test]
fn what_a_query_asks_for_is_found_wherever_it_stands() {
    let text = "sum by (a) (rate(r_total{b=\"x\"}[5m])) / ignoring (c) (topk(3, g{m=~\"F|P\"}))";
    let (selected, labels) = asks_for(&query(text).expect("a query"));
    let names: Vec<_> = selected.iter().map(|it| it.metric.as_str()).collect();
    assert_eq!(names, ["r_total", "g"]);
    assert_eq!(labels.into_iter().collect::<Vec<_>>(), ["a", "c"]);
    assert_eq!(words(&selected[1].matchers[0]), ["F", "P"]);
}
