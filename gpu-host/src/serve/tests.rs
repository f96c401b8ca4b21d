//! A server on the fake device: what is asked for, what waits, what is lost, and any packets.

use super::*;
use rig::{ADD, BLOCK_BYTES, ENDLESS, Heard, Rig, code, handle, owner, submit, terms};

mod acts;
mod copies;
mod ends;
mod model;
mod parts;
mod rig;
mod waiting;
