//! What Standfast keeps on disks: the area that nodes share, and each node's own record.

pub mod area;
pub mod kept;
pub mod reservation;
