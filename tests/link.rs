//! The links on the real thing: network namespaces joined by a cable, loop devices over one file.
//! Run as root.

mod link {
    mod bench;
    mod disk;
    mod ethernet;
    mod mail;
}
