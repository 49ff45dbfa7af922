//! The page for those who have no mouse, do not see, sit in the dark, or have ten thousand Services; and when nobody answers.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::drawn::is_quiet;
use crate::stage::{Asked, Stage, yaml};

/// Ratio of luminances of two colours that WCAG 2 asks for, for text of a usual size (1.4.3).
const CONTRAST_MIN: f64 = 4.5;

/// Ratios of each text's colour to what is behind it, over everything that has text of its own.
const CONTRASTS: &str = r"(() => {
    const luminance = ([r, g, b]) => [r, g, b].map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, at) => sum + v * [0.2126, 0.7152, 0.0722][at], 0);
    const parse = text => (text.match(/[\d.]+/g) || []).map(Number);
    const behind = element => {
        for (let at = element; at; at = at.parentElement) {
            const colour = parse(getComputedStyle(at).backgroundColor);
            if (colour.length === 3 || colour[3] === 1) return colour;
        }
        return [255, 255, 255];
    };
    const own = element => [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim() !== '');
    return [...document.querySelectorAll('body *')].filter(element => own(element) && element.getClientRects().length > 0 && !element.closest('svg'))
        .map(element => {
            const [one, other] = [luminance(parse(getComputedStyle(element).color)), luminance(behind(element))];
            const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
            return [ratio, element.textContent.trim().slice(0, 40)];
        });
})()";

#[test]
fn a_screen_reader_hears_all_that_is_drawn() -> Result<()> {
    let mut stage = Stage::up()?;
    let heard = stage.browser.read_out()?;
    let has = |role: &str, name: &str| heard.iter().any(|it| it.0 == role && it.1.contains(name));
    for name in ["Services with their backends", "Entries of the kernel's maps"] {
        assert!(has("table", name), "{name}: {heard:?}");
    }
    for name in ["Solid: to pods", "first samples are still to come"] {
        assert!(["img", "image"].iter().any(|role| has(role, name)), "{name}: {heard:?}");
    }
    assert!(
        has("status", "")
            && has("searchbox", "Find")
            && has("rowheader", "shop/web:http")
            && has("columnheader", "State")
    );
    let unnamed = "[...document.querySelectorAll('table')].filter(table => !table.caption || !table.tHead).length \
        + [...document.querySelectorAll('th')].filter(cell => !cell.scope).length \
        + [...document.querySelectorAll('svg')].filter(svg => svg.getAttribute('aria-hidden') !== 'true' && !svg.getAttribute('aria-labelledby')).length";
    assert_eq!(stage.browser.evaluate(unnamed)?, 0);
    assert_eq!(stage.browser.evaluate("document.documentElement.lang")?, "en");
    Ok(())
}

#[test]
fn keys_reach_everything() -> Result<()> {
    let mut stage = Stage::up()?;
    const FOCUSED: &str =
        "document.activeElement.id || document.activeElement.className || document.activeElement.tagName";
    let mut met = Vec::new();
    for _ in 0..8 {
        stage.browser.press("Tab", 9)?;
        met.push(stage.browser.evaluate(FOCUSED)?);
    }
    let place = |id: &str| met.iter().position(|it| it == id);
    assert_eq!(place("skip"), Some(0), "{met:?}");
    assert!(place("find").is_some() && place("scroll") > place("find"), "{met:?}");
    let outline = stage.browser.evaluate("getComputedStyle(document.activeElement).outlineStyle")?;
    assert_eq!(outline, "solid", "what has the focus is seen");
    stage.browser.evaluate("document.querySelector('.skip').focus()")?;
    stage.browser.press("Enter", 13)?;
    stage.browser.wait_until("document.activeElement.id === 'services-title'")?;
    // The focus outlives what is drawn anew.
    stage.browser.evaluate("document.querySelector('#find').focus()")?;
    let drawn = stage.browser.evaluate("document.body.dataset.drawn")?;
    stage.browser.wait_until(&format!("document.body.dataset.drawn - {} >= 2", drawn.as_str().context("a number")?))?;
    assert_eq!(stage.browser.evaluate(FOCUSED)?, "find");
    is_quiet(&mut stage)
}

#[test]
fn text_can_be_read_by_day_and_by_night() -> Result<()> {
    let mut stage = Stage::up()?;
    let mut grounds = Vec::new();
    for scheme in ["light", "dark"] {
        stage.browser.prefer(scheme)?;
        grounds.push(stage.browser.evaluate("getComputedStyle(document.body).backgroundColor")?);
        let ratios = stage.browser.evaluate(CONTRASTS)?;
        let ratios = ratios.as_array().context("ratios")?;
        assert!(ratios.len() > 40, "{ratios:?}");
        let weak: Vec<&Value> = ratios.iter().filter(|it| it[0].as_f64() < Some(CONTRAST_MIN)).collect();
        assert_eq!(weak, [] as [&Value; 0], "{scheme}");
    }
    assert_ne!(grounds[0], grounds[1]);
    // As wide as a telephone: nothing sticks out but what scrolls by itself.
    let small = Stage::with(1, &[Asked("shop", "web", 0, &[0], false)], 500)?
        .browser
        .evaluate("document.documentElement.scrollWidth <= innerWidth")?;
    assert_eq!(small, true);
    Ok(())
}

#[test]
fn many_services_are_drawn_in_parts_and_found_by_name() -> Result<()> {
    let mut stage = Stage::with(1, &[Asked("shop", "web", 0, &[0], false)], 1280)?;
    let many: Vec<String> = (0..250)
        .map(|index| yaml(&stage.lab, "many", &format!("service-{index:03}"), index % 200 + 1, &[], false))
        .collect();
    let ports = many.iter().enumerate().map(|(index, yaml)| {
        yaml.replace("port: 80\n", &format!("port: {}\n", 1000 + index)).replace("slice-", &format!("slice-{index}-"))
    });
    stage.manifests.write("many.yaml", &ports.collect::<Vec<_>>().join("---\n"))?;
    let shown = "document.querySelector('#services-shown').innerText";
    let rows = "document.querySelectorAll('#services tr.service').length";
    stage.browser.wait_until(&format!("{shown} === 'the first 100 of 251'"))?;
    assert_eq!(stage.browser.evaluate(rows)?, 100);
    let first = stage.browser.evaluate("document.querySelector('#services tr.service th').innerText")?;
    assert!(
        first.as_str().is_some_and(|name| name.starts_with("shop/web:http")),
        "those with pods here come first: {first}"
    );
    stage.browser.evaluate("document.querySelector('#more').click()")?;
    stage.browser.wait_until(&format!("{rows} === 200"))?;
    let find = "const find = document.querySelector('#find'); find.value = 'SERVICE-24'; find.dispatchEvent(new Event('input')); 1";
    stage.browser.evaluate(find)?;
    stage.browser.wait_until(&format!("{shown} === '10 services, of 251 in all' && {rows} === 10"))?;
    is_quiet(&mut stage)
}

#[test]
fn an_agent_that_is_gone_is_said_and_its_last_word_stays() -> Result<()> {
    let mut stage = Stage::up()?;
    stage.agent.kill()?;
    stage
        .browser
        .wait_until("document.querySelector('#verdict').innerText.startsWith('No answer from the agent for')")?;
    assert_eq!(stage.browser.evaluate("document.querySelector('#verdict').className")?, "verdict bad");
    assert_eq!(stage.browser.evaluate("document.title")?, "! xlb does not answer");
    assert_eq!(
        stage.browser.evaluate("document.querySelector('#services').innerText.includes('shop/web:http')")?,
        true
    );
    stage.agent.start_again()?;
    stage.browser.wait_until("document.querySelector('#verdict').innerText.startsWith('Serving 4 services')")
}
