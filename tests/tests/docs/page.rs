//! A page of the documentation, taken apart.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use pulldown_cmark::{CodeBlockKind, Event, HeadingLevel, Options, Parser, Tag, TagEnd};

/// Where pages are looked for, below the repository's root: these folders themselves, not those in them.
const FOLDERS: [&str; 3] = ["", "docs", "docs/decisions"];

/// What a link leads to.
pub enum Link {
    /// To somebody else's page: nobody asks the network.
    Outside,
    /// To a file of the repository, and perhaps to a heading in it.
    Inside {
        /// From the file system's root.
        file: PathBuf,
        /// Without its `#`.
        heading: Option<String>,
    },
}

impl Link {
    /// The file that it leads to.
    pub fn file(&self) -> Option<&PathBuf> {
        if let Self::Inside { file, .. } = self { Some(file) } else { None }
    }
}

/// One page.
#[derive(Default)]
pub struct Page {
    /// Below the repository's root.
    pub name: String,
    /// Where its links lead.
    pub links: Vec<Link>,
    /// The names by which its headings are led to.
    pub anchors: BTreeSet<String>,
    /// Texts of its blocks of shell commands.
    shell: Vec<String>,
    /// Its code in sentences and tables.
    inline: Vec<String>,
    /// Code in the first cells of tables' rows, by the heading above.
    first_cells: BTreeMap<String, Vec<String>>,
}

/// The repository's root.
pub fn repository() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the repository").to_owned()
}

/// Every page.
pub fn pages() -> Result<Vec<Page>> {
    let mut pages = Vec::new();
    for folder in FOLDERS {
        let directory = repository().join(folder);
        for entry in fs::read_dir(&directory).with_context(|| format!("reading {}", directory.display()))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "md") {
                let name = path.strip_prefix(repository())?;
                pages.push(Page::read(name.to_str().context("a page's name")?)?);
            }
        }
    }
    Ok(pages)
}

impl Page {
    /// The page of this name, below the repository's root.
    pub fn read(name: &str) -> Result<Self> {
        let path = repository().join(name);
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let mut page = Page { name: name.to_owned(), ..Page::default() };
        let mut place = Place::default();
        for event in Parser::new_ext(&text, Options::ENABLE_TABLES) {
            page.take(event, &mut place);
        }
        Ok(page)
    }

    fn take(&mut self, event: Event<'_>, place: &mut Place) {
        match event {
            Event::Start(Tag::Heading { level, .. }) => place.heading = Some((level, String::new())),
            Event::End(TagEnd::Heading(_)) => {
                if let Some((level, heading)) = place.heading.take() {
                    self.begin_section(level, heading, place);
                }
            }
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                self.links.push(self.link(&dest_url));
            }
            Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(language))) if &*language == "sh" => {
                place.shell = Some(String::new());
            }
            Event::End(TagEnd::CodeBlock) => self.shell.extend(place.shell.take()),
            Event::Start(Tag::TableRow) => place.cell = 0,
            Event::End(TagEnd::TableCell) => place.cell += 1,
            Event::Start(Tag::Table(_)) => place.is_table = true,
            Event::End(TagEnd::Table) => place.is_table = false,
            Event::Text(text) => place.text(&text),
            Event::Code(code) => {
                place.text(&code);
                if place.is_table && place.cell == 0 {
                    self.first_cells.entry(place.section.clone()).or_default().push(code.to_string());
                }
                self.inline.push(code.to_string());
            }
            _ => {}
        }
    }

    fn begin_section(&mut self, level: HeadingLevel, heading: String, place: &mut Place) {
        let anchor = anchor(&heading);
        let twins = (1..).map(|number| format!("{anchor}-{number}"));
        let free = std::iter::once(anchor.clone()).chain(twins).find(|name| !self.anchors.contains(name));
        self.anchors.extend(free);
        if level <= HeadingLevel::H2 {
            place.section = heading;
        }
    }

    fn link(&self, target: &str) -> Link {
        if target.contains("://") || target.starts_with("mailto:") {
            return Link::Outside;
        }
        let (file, heading) = target.split_once('#').map_or((target, None), |(file, heading)| (file, Some(heading)));
        let own = repository().join(&self.name);
        let beside = own.parent().expect("a page is in a folder").join(file);
        let file = if file.is_empty() { own } else { beside.canonicalize().unwrap_or(beside) };
        Link::Inside { file, heading: heading.map(String::from) }
    }

    /// The commands of this program in blocks of shell commands, as words; what is piped to others or commented is left out.
    pub fn commands(&self, program: &str) -> Vec<Vec<String>> {
        let lines = self.shell.iter().flat_map(|block| block.lines());
        let commands = lines.map(|line| line.split([';', '|', '>', '&']).next().unwrap_or_default());
        let words = commands.filter_map(shlex::split);
        words.filter(|words| words.first().is_some_and(|word| word == program)).collect()
    }

    /// Whether its sentences or tables hold this as code, or code that begins with it.
    pub fn has_code(&self, code: &str) -> bool {
        let is_it = |rest: &str| rest.is_empty() || rest.starts_with([' ', '=']);
        self.inline.iter().any(|found| found.strip_prefix(code).is_some_and(is_it))
    }

    /// Code in the first cells of the tables of a section.
    pub fn first_cells(&self, section: &str) -> impl Iterator<Item = &str> {
        self.first_cells.get(section).into_iter().flatten().map(String::as_str)
    }
}

/// Where in a page its reader is.
#[derive(Default)]
struct Place {
    heading: Option<(HeadingLevel, String)>,
    section: String,
    shell: Option<String>,
    is_table: bool,
    cell: usize,
}

impl Place {
    fn text(&mut self, text: &str) {
        let heading = self.heading.as_mut().map(|(_, heading)| heading);
        if let Some(gathered) = heading.or(self.shell.as_mut()) {
            gathered.push_str(text);
        }
    }
}

/// The name by which GitHub leads to a heading.
fn anchor(heading: &str) -> String {
    let lower = heading.to_lowercase();
    let kept = lower.chars().filter(|letter| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_'));
    kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect()
}
