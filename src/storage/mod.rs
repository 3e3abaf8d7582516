//! What Standfast keeps on disks: the area that nodes share, each node's own record, and the last
//! words of a node that resets itself.

pub mod area;
pub mod certify;
pub mod kept;
pub mod last_words;
pub mod reservation;
