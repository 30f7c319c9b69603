//! The coordinator over simulated logs: single rules, and thousands of random histories.

mod history;
mod members;
mod opening;
mod refused;
mod rig;
mod rules;
mod slices;
