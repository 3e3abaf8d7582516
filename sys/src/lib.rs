//! What the kernel lends, each behind an owner type: the only unsafe code of Standfast.
