//! Facts about files that change: what is served stays, mistakes are told, changes are seen.

use std::os::unix::fs::symlink;
use std::time::Duration;

use tempfile::TempDir;

use super::*;

#[test]
fn a_directory_is_read_in_order_without_hidden_files_other_names_and_folders() {
    let directory = directory(&[("b.yml", "b"), ("a.yaml", "a"), ("c.json", "c"), (".d.yaml", "d"), ("e.txt", "e")]);
    fs::create_dir(directory.path().join("f.yaml")).unwrap();
    let mut manifests = Manifests::open(directory.path()).unwrap();
    assert_eq!(read(&mut manifests), "a b c");
}

#[test]
fn at_the_start_every_mistake_is_fatal_and_all_are_told() {
    let directory = directory(&[("a.yaml", "a"), ("b.yaml", "a"), ("c.yaml", "[")]);
    let error = format!("{:#}", Manifests::open(directory.path()).map(|_| ()).unwrap_err());
    let path = directory.path().display();
    assert!(error.starts_with(&format!("reading manifests from {path}: \n")), "{error}");
    assert!(error.contains(&format!("{path}/c.yaml, document 1, line ")), "{error}");
    let twice = format!(
        "{path}/b.yaml, document 1: Service default/a is in {path}/a.yaml, document 1, too, and taken from there; \
         remove one of the two"
    );
    assert!(error.contains(&twice), "{error}");

    let absent = format!("{:#}", Manifests::open(Path::new("/nowhere")).map(|_| ()).unwrap_err());
    assert!(absent.starts_with("reading manifests from /nowhere: No such file"), "{absent}");
}

#[test]
fn a_file_that_is_spoiled_keeps_its_content_until_it_is_good_again() {
    let directory = directory(&[("a.yaml", "a"), ("b.yaml", "b")]);
    let mut manifests = Manifests::open(directory.path()).unwrap();

    write(&directory, "a.yaml", "[");
    write(&directory, "b.yaml", "c");
    assert_eq!(read(&mut manifests), "a c ! a.yaml, document 1, line 1");

    fs::write(directory.path().join("a.yaml"), b"# \n\xff").unwrap();
    assert_eq!(read(&mut manifests), "a c ! a.yaml, line 2");

    write(&directory, "a.yaml", "d");
    assert_eq!(read(&mut manifests), "c d");
}

#[test]
fn a_file_that_is_removed_or_emptied_takes_its_objects_along() {
    let directory = directory(&[("a.yaml", "a"), ("b.yaml", "b"), ("c.yaml", "c")]);
    let mut manifests = Manifests::open(directory.path()).unwrap();
    fs::remove_file(directory.path().join("a.yaml")).unwrap();
    fs::write(directory.path().join("b.yaml"), "").unwrap();
    assert_eq!(read(&mut manifests), "c");
}

#[test]
fn a_directory_or_file_given_by_name_that_vanishes_takes_nothing_along() {
    let directory = directory(&[("a.yaml", "a")]);
    let file = directory.path().join("a.yaml");
    let mut of_directory = Manifests::open(directory.path()).unwrap();
    let mut of_file = Manifests::open(&file).unwrap();

    fs::remove_dir_all(directory.path()).unwrap();

    let name = directory.path().file_name().unwrap().to_str().unwrap();
    assert_eq!(read(&mut of_directory), format!("a ! {name}"));
    assert_eq!(read(&mut of_file), "a ! a.yaml");
}

/// Listing and looking at the files take time, in which the directory can go: it is away for half of the readings here.
#[test]
fn a_directory_that_is_renamed_while_it_is_read_loses_nothing() {
    let directory = directory(&[("a.yaml", "a"), ("b.yaml", "b")]);
    let mut manifests = Manifests::open(directory.path()).unwrap();
    let away = directory.path().with_extension("away");
    let is_done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(std::sync::atomic::Ordering::Relaxed) {
                fs::rename(directory.path(), &away).unwrap();
                fs::rename(&away, directory.path()).unwrap();
            }
        });
        let readings: std::collections::BTreeSet<_> = (0..3000).map(|_| manifests.read().objects.len()).collect();
        is_done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(readings, [2].into());
    });
}

#[test]
fn an_object_in_two_files_is_taken_from_where_it_was() {
    let directory = directory(&[("b.yaml", "x")]);
    let mut manifests = Manifests::open(directory.path()).unwrap();

    write(&directory, "a.yaml", "x y");
    assert_eq!(read(&mut manifests), "x y ! a.yaml, document 1");
    assert_eq!(manifests.holders.values().next().unwrap(), &directory.path().join("b.yaml"));

    fs::remove_file(directory.path().join("b.yaml")).unwrap();
    assert_eq!(read(&mut manifests), "x y");
}

#[tokio::test]
async fn a_change_is_seen_at_once_and_reading_is_not_a_change() {
    let directory = directory(&[("a.yaml", "a")]);
    for path in [directory.path().to_path_buf(), directory.path().join("a.yaml")] {
        let mut manifests = Manifests::open(&path).unwrap();
        assert!(!changes_within(&mut manifests, 300).await, "{path:?}: nothing has changed");

        write(&directory, "a.yaml", if path.is_dir() { "b" } else { "c" });
        assert!(changes_within(&mut manifests, 2000).await, "{path:?}: the change is not seen");
        assert_eq!(read(&mut manifests), if path.is_dir() { "b" } else { "c" });
        assert!(!changes_within(&mut manifests, 300).await, "{path:?}: told twice");
    }
}

#[tokio::test]
async fn a_file_that_is_being_written_is_waited_for() {
    use std::io::Write;
    let directory = directory(&[("a.yaml", "a")]);
    let mut manifests = Manifests::open(directory.path()).unwrap();

    let mut file = File::create(directory.path().join("a.yaml")).unwrap();
    assert!(!changes_within(&mut manifests, 100).await, "an editor that truncates first has not finished");
    file.write_all(service("b").as_bytes()).unwrap();
    drop(file);

    assert!(changes_within(&mut manifests, 2000).await);
    assert_eq!(read(&mut manifests), "b");
}

#[tokio::test]
async fn a_config_map_mount_is_followed_when_its_link_is_swapped() {
    let mount = directory(&[]);
    let at = |name: &str| mount.path().join(name);
    for (version, service_name) in [("..1", "a"), ("..2", "b")] {
        fs::create_dir(at(version)).unwrap();
        fs::write(at(version).join("web.yaml"), service(service_name)).unwrap();
    }
    symlink("..1", at("..data")).unwrap();
    symlink("..data/web.yaml", at("web.yaml")).unwrap();
    for path in [mount.path().to_path_buf(), at("web.yaml")] {
        let mut manifests = Manifests::open(&path).unwrap();
        let (next, expected) = if path.is_dir() { ("..2", "b") } else { ("..1", "a") };

        symlink(next, at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();

        assert!(changes_within(&mut manifests, 1000).await, "{path:?}");
        assert_eq!(read(&mut manifests), expected);
    }
}

#[tokio::test]
async fn a_directory_that_comes_back_is_watched_again() {
    let parent = directory(&[]);
    let path = parent.path().join("manifests");
    fs::create_dir(&path).unwrap();
    let mut manifests = Manifests::open(&path).unwrap();
    fs::remove_dir(&path).unwrap();
    assert!(changes_within(&mut manifests, 6000).await);
    manifests.read();

    fs::create_dir(&path).unwrap();
    fs::write(path.join("a.yaml"), service("a")).unwrap();
    let mut is_found = false;
    for _ in 0..15 {
        // The agent waits for other events, too: each time one comes, the waiting begins anew.
        is_found = is_found || changes_within(&mut manifests, 400).await;
    }
    assert!(is_found, "found by looking");
    assert_eq!(read(&mut manifests), "a");

    fs::write(path.join("a.yaml"), service("b")).unwrap();
    assert!(changes_within(&mut manifests, 1000).await, "told by inotify");
    assert_eq!(read(&mut manifests), "b");
}

async fn changes_within(manifests: &mut Manifests, limit_ms: u64) -> bool {
    tokio::time::timeout(Duration::from_millis(limit_ms), manifests.next_change()).await.is_ok()
}

/// Names of the Services in order, then `!` and the places of the mistakes.
fn read(manifests: &mut Manifests) -> String {
    let outcome = manifests.read();
    let mut words: Vec<String> = outcome.objects.iter().map(|object| object.key().name.name).collect();
    for error in outcome.errors {
        let place = error.refusal().object;
        words.push(format!("! {}", place.rsplit('/').next().unwrap()));
    }
    words.join(" ")
}

fn directory(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, services) in files {
        write(&directory, name, services);
    }
    directory
}

/// A file with these Services, or `[` for one that is not YAML.
fn write(directory: &TempDir, file: &str, services: &str) {
    let documents: Vec<String> = services.split(' ').map(service).collect();
    fs::write(directory.path().join(file), documents.join("---\n")).unwrap();
}

fn service(name: &str) -> String {
    match name {
        "[" => "[\n".into(),
        name => format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n"),
    }
}
