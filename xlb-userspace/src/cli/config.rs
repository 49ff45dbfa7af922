//! Where the settings of `xlb run` come from: flags, then the environment, then the configuration file, then defaults.
//!
//! Each flag is defined once, for clap. What the environment and the file say becomes flags in front of those that were typed,
//! and clap parses all of them together: values, defaults, and which of them exclude or need each other.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};

use crate::agent::settings::{Origin, Setting};

mod file;
pub mod show;
mod value;

/// Where the file is unless told otherwise; it need not be there.
pub const DEFAULT_FILE: &str = "/etc/xlb/config.yaml";

/// Before the name of a setting in the environment.
const PREFIX: &str = "XLB_";

/// So many letters differ in a name that was meant to be another one.
const TYPO_MAX: usize = 2;

/// The flag that names the file. It is no setting of its own.
const FILE_FLAG: &str = "config";

/// The one setting that other commands than `run` take from environment and file: which dataplane they are about.
const SHARED: &str = "bpffs-dir";

/// What this process was given.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Its arguments, with its name.
    pub arguments: Vec<OsString>,
    /// Its environment, as far as it is text.
    pub environment: BTreeMap<String, String>,
    /// Where the file is if nobody says.
    pub default_file: PathBuf,
    /// Whether that one has to be there: it has been read before.
    pub file_is_needed: bool,
}

impl Surroundings {
    /// Those of this process.
    #[must_use]
    pub fn here() -> Self {
        let text = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
        Self {
            arguments: std::env::args_os().collect(),
            environment: std::env::vars_os().filter_map(text).collect(),
            default_file: DEFAULT_FILE.into(),
            file_is_needed: false,
        }
    }

    /// What the environment says of a setting; an empty variable says nothing.
    fn variable(&self, name: &str) -> Option<&str> {
        self.environment.get(&variable(name)).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The file to read; none: there is none, and nobody asked for one.
    fn file(&self, flag: Option<&PathBuf>) -> Option<PathBuf> {
        let named = flag.cloned().or_else(|| self.variable(FILE_FLAG).map(PathBuf::from));
        let is_read = self.file_is_needed || self.default_file.exists();
        named.or_else(|| is_read.then(|| self.default_file.clone()))
    }
}

/// A value that was not typed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Given {
    name: String,
    text: String,
    origin: Origin,
    /// The variable, or the file and its line.
    place: String,
}

impl Given {
    /// As a flag. All of them take a value in this way.
    fn flag(&self) -> OsString {
        format!("--{}={}", self.name, self.text).into()
    }
}

/// A command line with all that was given besides.
#[derive(Debug)]
pub struct Settled {
    /// What clap is to parse.
    pub arguments: Vec<OsString>,
    /// The file that was read.
    pub file: Option<PathBuf>,
    given: BTreeMap<String, Given>,
}

/// Completes the arguments of `run`, and of `config show`, by environment and file; those of other commands by where the
/// dataplane is, for which a file that cannot be used is no obstacle: `warn` is told.
///
/// # Errors
/// When the file cannot be read, or says something that no flag takes.
pub fn settle(command: &Command, surroundings: &Surroundings, warn: impl FnOnce(&anyhow::Error)) -> Result<Settled> {
    let lenient = relaxed(command.clone()).ignore_errors(true);
    let typed = lenient.try_get_matches_from(&surroundings.arguments).unwrap_or_default();
    let (mut path, mut asked, mut matches) = (0, command, &typed);
    while let Some((name, of)) = matches.subcommand() {
        let Some(found) = asked.find_subcommand(name) else { break };
        (path, asked, matches) = (path + 1, found, of);
    }
    let arguments = surroundings.arguments.clone();
    let is_of_run = path > 0 && asked.get_arguments().any(|arg| arg.get_long() == Some(FILE_FLAG));
    let is_of_dataplane = path > 0 && asked.get_arguments().any(|arg| arg.get_long() == Some(SHARED));
    let nothing = Settled { arguments, file: None, given: BTreeMap::new() };
    if !is_of_dataplane {
        return Ok(nothing);
    }
    let run = relaxed(command.find_subcommand("run").context("there is no command run")?.clone());
    if is_of_run {
        let file = surroundings.file(matches.get_one(FILE_FLAG));
        let given = given(&run, surroundings, file.as_deref())?;
        let given = chosen(&run, matches, given);
        return Ok(nothing.with(path, given, file));
    }
    let file = surroundings.file(None);
    let given = given(&run, surroundings, file.as_deref());
    let mut given = given.inspect_err(|error| warn(error)).unwrap_or_default();
    given.retain(|given| given.name == SHARED && matches.value_source("bpffs_dir") != Some(ValueSource::CommandLine));
    Ok(nothing.with(path, given, file))
}

impl Settled {
    /// With these values as flags right behind the names of the commands.
    fn with(mut self, path: usize, given: Vec<Given>, file: Option<PathBuf>) -> Self {
        let at = (path + 1).min(self.arguments.len());
        self.arguments.splice(at..at, given.iter().map(Given::flag));
        self.given = given.into_iter().map(|given| (given.name.clone(), given)).collect();
        Self { file, ..self }
    }

    /// Says what clap refuses, and ends the process as clap does.
    pub fn end(&self, error: &clap::Error) -> ! {
        // Nobody listens, if it cannot be printed.
        let _ = error.print();
        if error.use_stderr() && !self.given.is_empty() {
            let places: Vec<&str> = self.given.values().map(|given| given.place.as_str()).collect();
            eprintln!("\nbeside the arguments, these settings count: {}", places.join(", "));
        }
        std::process::exit(error.exit_code())
    }

    /// All settings of `run`, with where each comes from.
    #[must_use]
    pub fn settings(&self, run: &Command, matches: &ArgMatches) -> Vec<Setting> {
        let setting = |arg: &Arg| {
            let name = arg.get_long().unwrap_or_default().to_owned();
            let id = arg.get_id().as_str();
            let texts = matches.get_raw(id).into_iter().flatten().map(|text| text.to_string_lossy().into_owned());
            let value = texts.collect::<Vec<_>>().join(",");
            let is_said = matches.value_source(id) == Some(ValueSource::CommandLine);
            let (origin, place) = match self.given.get(&name) {
                Some(given) if is_said => (given.origin, Some(given.place.clone())),
                _ if is_said => (Origin::Flag, None),
                _ => (Origin::Default, None),
            };
            Setting { name, value, origin, place }
        };
        settings_of(run).map(setting).collect()
    }
}

/// The flags of `run` that are settings.
fn settings_of(run: &Command) -> impl Iterator<Item = &Arg> {
    let is_one = |arg: &&Arg| arg.get_long().is_some_and(|name| ![FILE_FLAG, "help", "version"].contains(&name));
    run.get_arguments().filter(is_one)
}

/// Everything that environment and file say. What a flag of its name would refuse is refused here, with its place.
fn given(run: &Command, surroundings: &Surroundings, file: Option<&Path>) -> Result<Vec<Given>> {
    let names: Vec<&str> = settings_of(run).filter_map(Arg::get_long).collect();
    let of_environment = names.iter().filter_map(|&name| {
        let text = surroundings.variable(name)?.to_owned();
        Some(Given { name: name.into(), text, origin: Origin::Environment, place: variable(name) })
    });
    let mut all: Vec<Given> = of_environment.collect();
    let (in_file, mut mistakes) = file.map(|path| file::read(path, &names)).transpose()?.unwrap_or_default();
    for given in in_file {
        if !all.iter().any(|stronger| stronger.name == given.name) {
            all.push(given);
        }
    }
    mistakes.extend(all.iter().filter_map(|given| value::check(run, given).err()));
    ensure!(mistakes.is_empty(), "{}", mistakes.join("\n"));
    Ok(all)
}

/// What looks like a variable of ours, and is none: each with the one that was meant, probably. Others are none of our business:
/// Kubernetes makes variables for a Service called xlb.
#[must_use]
pub fn doubtful(run: &Command, surroundings: &Surroundings) -> Vec<(String, String)> {
    let mut known: Vec<String> = settings_of(run).filter_map(Arg::get_long).map(variable).collect();
    known.push(variable(FILE_FLAG));
    let strangers = surroundings.environment.keys().filter(|name| name.starts_with(PREFIX) && !known.contains(name));
    let meant = |name: &String| {
        let near = known.iter().find(|known| strsim::damerau_levenshtein(name, known) <= TYPO_MAX)?;
        Some((name.clone(), near.clone()))
    };
    strangers.filter_map(meant).collect()
}

/// Of these, those that were not typed, and that nothing stronger excludes: a typed `--kube` is stronger than a file's
/// `manifests`. Two of equal strength that exclude each other are clap's to refuse; what is `false` and could exclude something
/// is as if it were not said.
fn chosen(run: &Command, typed: &ArgMatches, given: Vec<Given>) -> Vec<Given> {
    let is_typed = |arg: &Arg| typed.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine);
    let mut strength: BTreeMap<String, Origin> = settings_of(run)
        .filter(|arg| is_typed(arg))
        .filter_map(|arg| Some((arg.get_long()?.to_owned(), Origin::Flag)))
        .collect();
    for given in &given {
        strength.entry(given.name.clone()).or_insert(given.origin);
    }
    let is_chosen = |given: &&Given| {
        let arg = run.get_arguments().find(|arg| arg.get_long() == Some(&given.name));
        let excluded = arg.map(|arg| exclusive(run, arg)).unwrap_or_default();
        let is_excluded = excluded.iter().any(|other| strength.get(*other).is_some_and(|of| *of < given.origin));
        let says_nothing = !excluded.is_empty() && given.text == "false";
        strength[&given.name] == given.origin && !is_excluded && !says_nothing
    };
    given.iter().filter(is_chosen).cloned().collect()
}

/// The settings that cannot be together with this one.
fn exclusive<'a>(run: &'a Command, arg: &Arg) -> Vec<&'a str> {
    let excludes = |one: &Arg, other: &Arg| run.get_arg_conflicts_with(one).contains(&other);
    let others = settings_of(run).filter(|other| excludes(arg, other) || excludes(other, arg));
    others.filter_map(Arg::get_long).collect()
}

/// The same command, none of whose arguments has to be there.
#[must_use]
pub fn relaxed(command: Command) -> Command {
    command.mut_args(|arg| arg.required(false)).mut_subcommands(relaxed)
}

/// The variable of a setting.
fn variable(name: &str) -> String {
    PREFIX.to_owned() + &name.replace('-', "_").to_uppercase()
}

#[cfg(test)]
mod tests;
