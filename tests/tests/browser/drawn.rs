//! What is drawn, beside what `xlb inspect` says.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::stage::{EVIL, PAGE, Stage};

/// Each row of the table of services, as the texts of its cells.
const ROWS: &str = "[...document.querySelectorAll('#services tbody tr')].map(row => \
    [row.className, ...[...row.cells].map(cell => cell.innerText.trim())])";

#[test]
fn what_the_page_draws_is_what_the_maps_hold() -> Result<()> {
    let mut stage = Stage::up()?;
    let _held = [stage.hold(0)?, stage.hold(0)?, stage.hold(0)?, stage.hold(0)?, stage.hold(1)?];
    let is_drawn = "document.querySelector('#services')?.innerText.includes('team/zweb')";
    let (rows, maps) = stage.until("five connections are drawn", |browser, maps| {
        let rows = browser.evaluate(ROWS).ok()?;
        let open: u64 = services(&rows).iter().filter_map(|row| row[4].as_str()?.parse::<u64>().ok()).sum();
        (open == 5 && browser.evaluate(is_drawn).ok()? == true).then(|| (rows, maps.clone()))
    })?;
    let drawn = services(&rows);
    for service in maps["services"].as_array().context("services")? {
        let name = service["name"].as_str().context("a name")?;
        let row = drawn.iter().find(|row| row[1].as_str().is_some_and(|cell| cell.starts_with(name)));
        let row = row.with_context(|| format!("{name} is not drawn"))?;
        let vip = service["frontends"][0].as_str().context("a frontend")?;
        assert!(row[1].as_str().is_some_and(|cell| cell.contains(vip)), "{row:?}");
        let backends = service["backends"].as_array().context("backends")?;
        let state = if backends.is_empty() { "no pod here" } else { "serving" };
        assert!(row[2].as_str().is_some_and(|cell| cell.starts_with(state)), "{row:?}");
        for backend in backends {
            let address = backend["address"].as_str().context("an address")?;
            let is_of = |row: &&Vec<Value>| row[0] == "backend" && row[1] == address;
            let all = rows.as_array().context("rows")?.iter().filter_map(Value::as_array);
            let shares: Vec<_> = all.filter(is_of).map(|row| row[3].as_str().unwrap_or_default()).collect();
            let share = match (service["slots"].as_f64(), backend["slots"].as_f64()) {
                (Some(slots), Some(own)) if slots > 0.0 => format!("{} %", (own / slots * 100.0).round()),
                _ => "100 %".into(),
            };
            assert!(shares.contains(&share.as_str()), "{address} of {name}: {shares:?}, not {share}");
        }
    }
    let zweb = drawn.iter().find(|row| row[1].as_str().is_some_and(|cell| cell.starts_with("team/zweb")));
    assert_eq!(zweb.context("zweb")?[2], "not served\nnothing of it is served: see its warnings");
    let verdict = stage.browser.evaluate("document.querySelector('#verdict').innerText")?;
    assert_eq!(verdict, "Serving 4 services with 3 backends; 1 thing is not done");
    assert_eq!([&maps["services"], &maps["backends"]].map(|all| all.as_array().map(Vec::len)), [Some(4), Some(3)]);
    let warned = stage.browser.evaluate("document.querySelector('#warning-list').innerText")?;
    let why = maps["refusals"][0]["why"].as_str().context("why")?;
    assert!(warned.as_str().is_some_and(|text| text.contains(why)), "{warned}");
    let uplinks = stage.browser.evaluate("document.querySelector('#uplinks').innerText")?;
    assert!(
        uplinks.as_str().is_some_and(|text| text.contains("eth0 (veth): tc") && text.contains("eth1")),
        "{uplinks}"
    );
    is_quiet(&mut stage)
}

#[test]
fn drops_are_drawn_by_reason_with_what_to_do() -> Result<()> {
    let mut stage = Stage::up()?;
    // Nobody is at the third VIP: each try is dropped. Those before the first sample belong to no step.
    let drawn = "document.querySelectorAll('#drops rect').length > 0 && document.querySelectorAll('#reasons tbody tr').length > 0";
    stage.browser.wait_until("!document.querySelector('#drops-text').innerText.includes('still to come')")?;
    while stage.browser.evaluate(drawn)? != true {
        assert!(stage.hold(2).is_err(), "somebody answers where nobody is");
    }
    let maps = stage.agent.inspect()?;
    let cells = "[...document.querySelectorAll('#reasons tbody tr')].map(row => [...row.cells].map(cell => cell.innerText.trim()))";
    let (rows, dropped) = stage.until("the page has all drops", |browser, maps| {
        let rows = browser.evaluate(cells).ok()?;
        let dropped = maps["counters"]["empty_dropped"].as_u64()?;
        let drawn = rows.as_array()?.iter().find(|row| row[0] == "empty_dropped")?[3].clone();
        (drawn.as_str() == Some(&dropped.to_string())).then_some((rows, dropped))
    })?;
    assert!(dropped > 0 && maps["counters"]["empty_dropped"].as_u64() > Some(0));
    let what = rows[0][4].as_str().context("what to do")?;
    assert!(what.contains("no usable pod on this node") && what.contains("→ stop announcing the VIP"), "{rows}");
    let told = stage.browser.evaluate("document.querySelector('#drops-text').innerText")?;
    assert!(told.as_str().is_some_and(|text| text.contains("empty_dropped")), "{told}");
    is_quiet(&mut stage)
}

#[test]
fn a_name_that_would_be_an_element_is_drawn_as_text() -> Result<()> {
    let mut stage = Stage::up()?;
    let name = json!(EVIL);
    stage.browser.wait_until(&format!("document.querySelector('#services').innerText.includes({name})"))?;
    // A refusal names it too: in warnings and events.
    let evil = crate::stage::yaml(&stage.lab, "zteam", EVIL, 3, &[1], false);
    stage.manifests.write("evil-too.yaml", &evil)?;
    for list in ["#warning-list", "#events"] {
        stage.browser.wait_until(&format!("document.querySelector('{list}').innerText.includes('zteam/' + {name})"))?;
    }
    assert_eq!(stage.browser.evaluate("document.querySelectorAll('img, script:not(body > script)').length")?, 0);
    let title = stage.browser.evaluate("document.title")?;
    assert!(title.as_str().is_some_and(|title| title.ends_with("node · xlb")), "{title}");
    is_quiet(&mut stage)
}

#[test]
fn an_inserted_script_would_not_run() -> Result<()> {
    let mut stage = Stage::up()?;
    let insert = "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.hacked = 1\">'); \
        const script = document.createElement('script'); script.textContent = 'window.hacked = 1'; document.body.append(script); 1";
    stage.browser.evaluate(insert)?;
    let asked = "fetch('http://192.0.2.1/').then(() => 'asked', error => 'refused')";
    assert_eq!(stage.browser.evaluate(asked)?, "refused");
    assert_eq!(stage.browser.evaluate("window.hacked === undefined")?, true);
    let complaints = stage.browser.complaints()?;
    assert!(complaints.iter().any(|complaint| complaint.contains("Content Security Policy")), "{complaints:?}");
    Ok(())
}

fn services(rows: &Value) -> Vec<Vec<Value>> {
    let rows = rows.as_array().into_iter().flatten().filter_map(Value::as_array);
    rows.filter(|row| row[0] == "service").cloned().collect()
}

/// Nothing was complained of, and nobody else was asked.
pub fn is_quiet(stage: &mut Stage) -> Result<()> {
    assert_eq!(stage.browser.complaints()?, [] as [String; 0]);
    let requests = stage.browser.requests()?;
    assert!(requests.len() > 1, "{requests:?}");
    let others: Vec<_> =
        requests.iter().filter(|url| !url.starts_with(PAGE) && !url.starts_with("data:image/svg")).collect();
    assert_eq!(others, [] as [&String; 0]);
    Ok(())
}
