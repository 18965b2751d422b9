//! End to end, through the installed binary. One test binary, so that the installation is built once.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod bad_input;
mod bandwidth;
mod calls;
mod cases;
mod chained;
mod changing_over;
mod check;
mod cnitool;
mod common;
mod components;
mod ctl;
mod del;
mod dhcp;
mod dhcp_attacks;
mod drop_in;
mod going_back;
mod hardware;
mod host_device;
mod image;
mod interop;
mod isolation;
mod leases;
mod native_ipam;
mod pod_routing;
mod ports;
mod reboot;
mod repair;
mod runner;
mod status;
mod vlan;
