//! The lines on a terminal, anew for each round and after each key.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers, poll, read};
use crossterm::style::{Attribute, Print, SetAttribute};
use crossterm::terminal::{
    Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode, size,
};
use crossterm::{cursor, execute, queue};

use super::look::{Look, Looker};
use super::rates::round;
use super::view::{Line, Sort, lines, window};

/// The last line of the screen.
const KEYS: &str = "q quit   p packets  b bytes  f new flows  n name   up and down";

/// Shows rounds until a key ends it.
///
/// # Errors
/// When the maps cannot be read any more, or the terminal is gone.
pub fn show(looker: &mut Looker, interval: Duration, sort: Sort) -> Result<()> {
    let mut terminal = Terminal::enter().context("taking over the terminal")?;
    let (mut before, mut state) = (looker.look()?, State { sort, from: 0, is_ending: false });
    let mut now = before.clone();
    loop {
        let due = Instant::now() + interval;
        while let Some(left) = due.checked_duration_since(Instant::now()) {
            terminal.draw(&before, &now, &mut state)?;
            if poll(left).context("waiting for a key")?
                && let Event::Key(key) = read().context("reading a key")?
            {
                state.follow(key);
            }
            if state.is_ending {
                return Ok(());
            }
        }
        (before, now) = (now, looker.look()?);
    }
}

/// What keys change.
struct State {
    sort: Sort,
    from: usize,
    is_ending: bool,
}

impl State {
    fn follow(&mut self, key: KeyEvent) {
        if key.kind == KeyEventKind::Release {
            return;
        }
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => self.is_ending = true,
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => self.is_ending = true,
            KeyCode::Char('j') | KeyCode::Down => self.from += 1,
            KeyCode::Char('k') | KeyCode::Up => self.from = self.from.saturating_sub(1),
            KeyCode::Char(key) => self.sort = Sort::of_key(key).unwrap_or(self.sort),
            _ => {}
        }
    }
}

/// Gives the terminal back as it was, whatever happens.
struct Terminal(io::Stdout);

impl Terminal {
    fn enter() -> io::Result<Self> {
        enable_raw_mode()?;
        let mut terminal = Self(io::stdout());
        execute!(terminal.0, EnterAlternateScreen, cursor::Hide)?;
        Ok(terminal)
    }

    fn draw(&mut self, before: &Look, now: &Look, state: &mut State) -> Result<()> {
        let all = lines(&round(before, now), state.sort);
        let (width, height) = size().context("asking for the terminal's size")?;
        let height = usize::from(height).saturating_sub(1);
        state.from = state.from.min(all.len().saturating_sub(height));
        // Behind the last column a terminal may begin a line of its own.
        let width = usize::from(width).saturating_sub(1);
        let shown = window(&all, state.from, (width, height));
        self.write(&shown, width).context("writing to the terminal")
    }

    fn write(&mut self, shown: &[Line], width: usize) -> io::Result<()> {
        queue!(self.0, cursor::MoveTo(0, 0))?;
        for line in shown {
            let attribute = if line.is_title { Attribute::Bold } else { Attribute::Reset };
            queue!(self.0, SetAttribute(attribute), Print(&line.text), SetAttribute(Attribute::Reset))?;
            queue!(self.0, Clear(ClearType::UntilNewLine), Print("\r\n"))?;
        }
        let keys: String = KEYS.chars().take(width).collect();
        queue!(self.0, Clear(ClearType::FromCursorDown), Print(keys))?;
        self.0.flush()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing back.
        let _ = execute!(self.0, LeaveAlternateScreen, cursor::Show);
        let _ = disable_raw_mode();
    }
}
