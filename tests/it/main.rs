//! End-to-end tests on the real binaries, and of the house they live in. One module a subject.

mod agent;
mod audit;
mod backup;
mod deploy;
mod drills;
mod evidence;
mod house;
mod journey;
mod log;
mod orders;
mod panel;
mod receipts;
mod refusals;
mod register;
mod restart;
mod sources;
mod spooled;
mod support;
