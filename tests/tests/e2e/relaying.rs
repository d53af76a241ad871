//! Postern is no open relay, whatever is tried (R5).

use anyhow::{Result, ensure};
use postern_tests::{
    dialogue::Dialogue,
    world::{HONEST, NEVER_ROUTE, World},
};

/// The classic tricks, each naming a foreign recipient in disguise.
const PROBES: &[&str] = &[
    "<victim@foreign.test>",
    "<victim%foreign.test@inside.test>",
    "<victim%foreign.test@mx.gateway.test>",
    "<victim%foreign.test@[203.0.113.1]>",
    "<victim%foreign.test>",
    "<@inside.test:victim@foreign.test>",
    "<@mx.gateway.test,@inside.test:victim@foreign.test>",
    "<foreign.test!victim>",
    "<foreign.test!victim@inside.test>",
    "<foreign.test!victim@[203.0.113.1]>",
    "<\"victim@foreign.test\">",
    "<\"victim@foreign.test\"@inside.test>",
    "<\"victim%foreign.test\"@inside.test>",
    "<\"foreign.test!victim\"@inside.test>",
    "<victim@foreign.test@inside.test>",
    "<victim@[198.51.100.1]>",
    "<victim@FOREIGN.test.>",
    "<victim@inside.test.foreign.test>",
    "<victim@notinside.test>",
    "<victim@sub.inside.test>",
];

#[test]
fn every_probe_of_an_open_relay_is_refused() -> Result<()> {
    let mut world = World::new()?;
    world.start("[limits]\nerrors = 100\n[ban]\nthreshold = 1000\n")?;
    for sender in ["<stranger@foreign.test>", "<someone@inside.test>", "<>", "<x@mx.gateway.test>"]
    {
        let mut smtp = Dialogue::open(&world.out, HONEST, "203.0.113.1:25")?;
        smtp.say("EHLO probe.test")?;
        let reply = smtp.say(&format!("MAIL FROM:{sender}"))?;
        ensure!(reply.starts_with("250"), "{sender}: {reply}");
        for probe in PROBES {
            let reply = smtp.say(&format!("RCPT TO:{probe}"))?;
            let expected = "550 5.7.1 Relaying is prohibited";
            ensure!(reply.starts_with(expected), "{sender} {probe}: {reply}");
        }
        let reply = smtp.say("RCPT TO:<user@inside.test>")?;
        ensure!(reply.starts_with("250"), "an inbound recipient was refused: {reply}");
    }
    world.stop()
}

#[test]
fn a_never_route_source_may_write_to_us_and_relay_nowhere() -> Result<()> {
    let mut world = World::new()?;
    let config = format!(
        "[relay]\nnever_route = [\"{NEVER_ROUTE}\"]\n[[listener]]\nname = \"mx\"\n\
         address = [\"203.0.113.1:25\"]\nrelay_for = [\"203.0.113.0/24\"]\n[ban]\nthreshold = 100\n"
    );
    world.start(&config)?;
    for (source, relays) in [(HONEST, true), (NEVER_ROUTE, false)] {
        let mut smtp = Dialogue::open(&world.out, source, "203.0.113.1:25")?;
        smtp.say("EHLO probe.test")?;
        smtp.say("MAIL FROM:<a@foreign.test>")?;
        let inbound = smtp.say("RCPT TO:<user@inside.test>")?;
        ensure!(inbound.starts_with("250"), "{source}: {inbound}");
        let foreign = smtp.say("RCPT TO:<user@elsewhere.test>")?;
        ensure!(
            foreign.starts_with(if relays { "250" } else { "550 5.7.1" }),
            "{source}: {foreign}"
        );
    }
    world.cli_ok(&["never-route", "add", HONEST])?;
    let mut smtp = Dialogue::open(&world.out, HONEST, "203.0.113.1:25")?;
    smtp.say("EHLO probe.test")?;
    smtp.say("MAIL FROM:<a@foreign.test>")?;
    let foreign = smtp.say("RCPT TO:<user@elsewhere.test>")?;
    ensure!(foreign.starts_with("550 5.7.1"), "the list was not followed at once: {foreign}");
    world.stop()
}
