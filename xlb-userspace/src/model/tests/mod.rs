//! Facts about the model, one file for each question that it answers.

mod services;
mod contests;
mod backends;
mod delivery;
mod order;
