//! Facts about the model, one file for each question that it answers.

mod services;
mod families;
mod sources;
mod external_ips;
mod contests;
mod backends;
mod hints;
mod inside;
mod lost;
mod delivery;
mod host_before;
mod order;
