//! What Standfast keeps on shared disks.

pub mod area;
