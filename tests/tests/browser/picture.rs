//! The picture of the docs: `XLB_PICTURE=docs/pictures/page.png XLB_PICTURE_S=900 cargo xtask test browser -- the_picture`.

use std::net::SocketAddrV4;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};
use std::{env, fs};

use anyhow::{Context, Result};
use xlb_tests::browser::small;
use xlb_tests::lab::{LineClient, Namespace};

use crate::drawn::is_quiet;
use crate::stage::{Asked, PORT, Stage};

/// What a page of the docs may take.
const BYTES_MAX: usize = 150_000;
/// Speakers in a wave, and how long a wave is.
const WAVE: u64 = 240;

#[test]
fn the_picture_of_the_docs_is_small_and_whole() -> Result<()> {
    let services = [
        Asked("shop", "checkout", 0, &[0, 1, 2], false),
        Asked("shop", "catalogue", 1, &[3], false),
        Asked("media", "images", 2, &[4, 5], false),
        Asked("media", "legacy", 3, &[], true),
        Asked("team-b", "images-copy", 2, &[4], false),
    ];
    let mut stage = Stage::with(6, &services, 1200)?;
    let seconds: u64 = env::var("XLB_PICTURE_S").ok().map_or(Ok(0), |text| text.parse())?;
    let is_over = Arc::new(AtomicBool::new(false));
    let speakers: Vec<_> = [(0, 9), (0, 0), (1, 4), (1, 0), (2, 1), (2, 7)]
        .map(|(vip, phase)| speaker(&stage, vip, phase, is_over.clone()))
        .into_iter()
        .chain([knocker(&stage, 3, is_over.clone())])
        .collect();
    let _held: Vec<_> = (0..40).map(|index| stage.hold([0, 0, 1, 2][index % 4])).collect::<Result<_>>()?;
    stage.browser.wait_until("!document.querySelector('#drops-text').innerText.includes('still to come')")?;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(seconds) {
        sleep(Duration::from_secs(1));
    }
    let drawn = stage.browser.evaluate("Number(document.body.dataset.drawn)")?;
    stage.browser.wait_until(&format!("document.body.dataset.drawn > {drawn}"))?;
    let picture = small(&stage.browser.picture()?)?;
    is_over.store(true, Ordering::Relaxed);
    speakers.into_iter().for_each(|speaker| drop(speaker.join()));
    assert!(picture.starts_with(b"\x89PNG") && picture.len() < BYTES_MAX, "{} bytes", picture.len());
    if let Ok(path) = env::var("XLB_PICTURE") {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
        fs::write(&path, &picture).with_context(|| format!("writing {}", path.display()))?;
    }
    is_quiet(&mut stage)
}

/// A client that asks and downloads, now much, now little.
fn speaker(stage: &Stage, vip: usize, phase: u64, is_over: Arc<AtomicBool>) -> JoinHandle<()> {
    let (client, to) = (stage.lab.client(0).clone(), SocketAddrV4::new(stage.lab.vip(vip), PORT));
    let begun = Instant::now();
    std::thread::spawn(move || {
        while !is_over.load(Ordering::Relaxed) {
            let at = (begun.elapsed().as_secs() + phase * 20) % WAVE;
            let height = at.min(WAVE - at);
            // A failed try is one of the things that the page shows.
            let _ = talk(&client, to, 2_000 + height * 400);
            sleep(Duration::from_millis(20 + (WAVE - height) / 4));
        }
    })
}

fn talk(client: &Namespace, to: SocketAddrV4, bytes: u64) -> Result<()> {
    let mut connection = LineClient::connect(client, to)?;
    connection.identity()?;
    connection.download(bytes)
}

/// A client that knocks where nobody is, in bursts.
fn knocker(stage: &Stage, vip: usize, is_over: Arc<AtomicBool>) -> JoinHandle<()> {
    let (client, to) = (stage.lab.client(0).clone(), SocketAddrV4::new(stage.lab.vip(vip), PORT));
    let begun = Instant::now();
    std::thread::spawn(move || {
        while !is_over.load(Ordering::Relaxed) {
            match begun.elapsed().as_secs() % 180 {
                60..110 => drop(LineClient::connect(&client, to)),
                _ => sleep(Duration::from_secs(1)),
            }
        }
    })
}
