//! The page that `report` writes, in a browser.

use std::fs;

use serde_json::json;
use snapwarden_tests::Local;
use snapwarden_tests::browser::Browser;

/// The least contrast at which text is read by people who see poorly (source: WCAG 2.2, success criterion 1.4.3).
const CONTRAST: f64 = 4.5;

/// The contrast of each sort of text to the ground, as the browser shows them.
const CONTRASTS: &str = r#"(() => {
    const rgb = text => text.match(/[\d.]+/g).slice(0, 3).map(Number);
    const luminance = text => rgb(text)
        .map(part => part / 255)
        .map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
        .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
    const ground = element => {
        for (; element; element = element.parentElement) {
            const color = getComputedStyle(element).backgroundColor;
            if (color !== "rgba(0, 0, 0, 0)") return color;
        }
        return "rgb(255, 255, 255)";
    };
    const contrasts = {};
    for (const name of ["h1", "p", "footer p", "a", "code", "pre", "small", "thead th", ".ok", ".bad", ".none", "dt", "dd"]) {
        const element = document.querySelector(name);
        if (!element) continue;
        const [a, b] = [luminance(getComputedStyle(element).color), luminance(ground(element))];
        contrasts[name] = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    }
    return contrasts;
})()"#;

const GROUND: &str = "getComputedStyle(document.body).backgroundColor";
const OVERFLOW: &str = "document.scrollingElement.scrollWidth - document.documentElement.clientWidth";

/// Whoever opens it at night, on a phone or on paper, must be able to read it; and it must not tell anybody that it was
/// opened.
#[test]
fn the_page_is_read_in_light_and_dark_on_a_phone_and_on_paper() {
    let Some(mut browser) = Browser::start() else {
        assert!(std::env::var_os("CI").is_none(), "CI looks at the page");
        return;
    };
    let local = Local::new();
    local.deploy();
    local.json(&["local", "seed"]);
    local.json(&["local", "night", "--nights", "9"]);
    let path = local.path("backups.html");
    local.ok(&["report", "--out", &path.display().to_string()]);
    let snapshots = local.snapshots();
    assert!(snapshots.len() >= 9, "{} snapshots", snapshots.len());

    browser.resize(1200, 900);
    browser.emulate("screen", "light");
    browser.open(&path);
    let requests = browser.events("Network.requestWillBeSent");
    assert_eq!(requests.len(), 1, "only the page itself is asked for: {requests:?}");
    assert_eq!(browser.events("Log.entryAdded"), Vec::<&serde_json::Value>::new());

    let light = browser.evaluate(GROUND);
    for scheme in ["light", "dark"] {
        browser.emulate("screen", scheme);
        let contrasts = browser.evaluate(CONTRASTS);
        let contrasts = contrasts.as_object().expect("contrasts");
        assert!(contrasts.len() >= 8, "{contrasts:?}");
        for (text, contrast) in contrasts {
            assert!(contrast.as_f64() >= Some(CONTRAST), "{scheme}: {text} has {contrast}");
        }
    }
    assert_ne!(browser.evaluate(GROUND), light, "dark is dark");

    for width in [360, 390, 768, 1200] {
        browser.resize(width, 800);
        assert_eq!(browser.evaluate(OVERFLOW), 0, "at {width} pixels the whole page moves sideways");
    }

    browser.resize(390, 800);
    browser.evaluate("document.querySelector('details summary').click()");
    let command = browser.evaluate("document.querySelector('details[open] pre').innerText");
    assert!(command.as_str().is_some_and(|text| text.starts_with("aws ec2 create-volume ")), "{command}");

    browser.emulate("print", "dark");
    assert_eq!(browser.evaluate(GROUND), json!("rgb(255, 255, 255)"), "paper is white");
    assert!(browser.print().len() > 10_000, "it has pages");
    // To look at it by hand: SNAPWARDEN_KEEP_PAGE=/tmp/backups.html.
    if let Some(keep) = std::env::var_os("SNAPWARDEN_KEEP_PAGE") {
        fs::copy(path, keep).expect("a copy of the page");
    }
}
