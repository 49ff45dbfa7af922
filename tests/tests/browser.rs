//! The agent's page in a real browser, over an agent with real traffic: what is drawn is what is so.

#[path = "browser/stage.rs"]
mod stage;

#[path = "browser/drawn.rs"]
mod drawn;
#[path = "browser/usable.rs"]
mod usable;
#[path = "browser/picture.rs"]
mod picture;
