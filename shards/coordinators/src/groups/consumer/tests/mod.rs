//! The machine of consumer groups under scripted and seeded histories, in simulated time.

mod classic_client;
mod history;
mod migration;
mod rig;
mod script;
