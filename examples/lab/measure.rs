use crate::rig::lab::{Lab, Wish};
use crate::rig::leftovers;
use crate::rig::software::{Service, Software};
use crate::rig::trouble::Trouble;

pub(crate) fn try_out() -> Result<(), Trouble> {
    leftovers::clean_up_on_signals()?;
    let wish = Wish {
        software: Software::Keepalived { advert_ms: 10 },
        ..Wish::detect(500)
    };
    let t = std::time::Instant::now();
    let mut lab = Lab::start(wish.with(Service::Address))?;
    println!("up after {:?}", t.elapsed());
    for _ in 0..5 {
        let owner = lab.owner()?;
        let at = lab.nodes[owner].murder()?;
        let verdict = lab.moved_to(1 - owner, at)?;
        println!("{verdict:?}");
        let t = std::time::Instant::now();
        lab.nodes[owner].boot()?;
        println!("booted in {:?}", t.elapsed());
        std::thread::sleep(std::time::Duration::from_millis(500));
    }
    Ok(())
}
