//! How the demo looks: chapters, lines, tables.

/// One line of plain text.
pub fn say(line: &str) {
    println!("{line}");
}

/// Begins a chapter.
pub fn chapter(title: &str) {
    println!("\n{title}");
}

/// One fact: what it is about, and what there is to know. The topics of a chapter stand below each other.
pub fn fact(topic: &str, text: &str) {
    println!("  {topic:<10} {text}");
}

/// Lines of a program's output, set off from what the demo itself says.
pub fn quote(text: &str) {
    for line in text.lines() {
        println!("    {line}");
    }
}

/// Rows under a heading, each column as wide as its widest cell; numbers stand at its right end.
pub fn table<const COLUMNS: usize>(heading: [&str; COLUMNS], rows: &[[String; COLUMNS]]) {
    let heading = heading.map(str::to_owned);
    let all = || std::iter::once(&heading).chain(rows);
    let widths: [usize; COLUMNS] =
        std::array::from_fn(|column| all().map(|row| row[column].len()).max().unwrap_or_default());
    let is_number: [bool; COLUMNS] =
        std::array::from_fn(|column| rows.iter().all(|row| row[column].parse::<u64>().is_ok()));
    for row in all() {
        let cells: Vec<String> = (0..COLUMNS).map(|at| cell(&row[at], widths[at], is_number[at])).collect();
        println!("    {}", cells.join("  ").trim_end());
    }
}

/// `1 download`, `2 downloads`.
pub fn count(number: usize, thing: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{number} {thing}{ending}")
}

/// `5.2 MB`.
pub fn megabytes(bytes: u64) -> String {
    format!("{}.{} MB", bytes / 1_000_000, bytes % 1_000_000 / 100_000)
}

fn cell(text: &str, width: usize, is_number: bool) -> String {
    if is_number { format!("{text:>width$}") } else { format!("{text:<width$}") }
}
