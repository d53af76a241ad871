use relay_common::entry::{List, Scope};
use relay_core::feed::Format;

use super::*;

const EXAMPLE: &str = r#"
        [server]
        hostname = "mx.example.org"
        [[filter.attach]]
        interface = "eth0"
        [[filter.attach]]
        interface = "tun0"
        allow_generic = true
        [[listener]]
        name = "mx"
        address = ["127.0.0.1:2525"]
        relay_for = ["10.0.0.0/255.0.0.0"]
        proxy_protocol = ["10.0.0.5", "2001:db8::/120"]
        xclient = ["10.0.0.6"]
        xforward = ["10.0.0.7"]
        [lmtp]
        socket = "/run/postern/lmtp.sock"
        mode = "0660"
        group = "mail"
        relay_for_users = ["list"]
        [[domain]]
        name = "*.Example.org"
        route = "inbound"
        host = ["10.0.0.5"]
        [relay]
        smart_host = "smtp.example.net:587"
        never_route = ["10.9.0.0/16"]
        [[dnsbl]]
        zone = "zen.example.net"
        listed = ["127.0.0.2-127.0.0.9"]
        [[feed]]
        name = "drop"
        source = "https://lists.example.net/drop.json?a=b"
        format = "drop-json"
        max_shrink = 30
        [[feed]]
        name = "partners"
        source = "/etc/partners.csv"
        format = "csv"
        column = 2
        list = "allow"
        observe = true
        [limits]
        message_size = "1MiB"
        "#;

fn problem(text: &str) -> String {
    parse(Path::new("postern.toml"), text).expect_err(text).to_string()
}

#[test]
fn the_embedded_configuration_relays_for_nobody() {
    let config = embedded();
    assert!(config.domains.is_empty() && config.relay.smart_host.is_none());
    assert!(config.listeners.iter().all(|listener| listener.relay_for.is_empty()));
    assert_eq!(config.listeners.len(), 3);
    assert!(config.listeners[1..].iter().all(|listener| listener.auth == Offer::Require));
    assert_eq!(config.listeners[2].tls, ListenerTls::Implicit);
    assert_eq!(config.filter.enforce, Enforce::Kernel);
}

#[test]
fn the_default_file_means_what_no_file_means() {
    let written = parse(Path::new("default.toml"), DEFAULT).unwrap();
    assert_eq!(format!("{written:?}"), format!("{:?}", embedded()));
}

#[test]
fn a_whole_example_is_read() {
    let config = parse(Path::new("postern.toml"), EXAMPLE).unwrap();
    assert_eq!(config.server.hostname, "mx.example.org");
    assert_eq!(config.listeners.len(), 1);
    assert_eq!(config.listeners[0].relay_for[0].to_string(), "10.0.0.0/8");
    assert_eq!(config.domains[0].pattern, "*.example.org");
    assert_eq!(config.domains[0].hosts[0].to_string(), "10.0.0.5:25");
    assert_eq!(config.dnsbl[0].name, "zen.example.net");
    assert_eq!(config.limits.message_size_bytes, 1 << 20);
    let [drop, partners] = &config.feeds[..] else { panic!("{:?}", config.feeds) };
    assert_eq!(
        (drop.scope, drop.refresh.as_secs(), drop.lease.as_secs()),
        (Scope::MX, 3600, 259_200)
    );
    assert_eq!((drop.format, drop.limits.shrink_max_percent), (Format::DropJson, 30));
    assert_eq!(partners.source, FeedSource::File("/etc/partners.csv".into()));
    assert_eq!((partners.format, partners.scope), (Format::Csv { column: 2 }, Scope::ALL));
    assert_eq!(config.feed_entries_max(List::Deny), 1 << 20);
    assert_eq!(config.inside_addresses(), ["10.0.0.5".parse::<std::net::IpAddr>().unwrap()]);
}

#[test]
fn named_interfaces_take_the_place_of_the_configured_ones_and_keep_their_modes() {
    let mut filter = parse(Path::new("postern.toml"), EXAMPLE).unwrap().filter;
    let modes = |filter: &Filter| -> Vec<(String, bool)> {
        filter.attach.iter().map(|of| (of.interface.clone(), of.allow_generic)).collect()
    };
    assert_eq!(modes(&filter), [("eth0".to_owned(), false), ("tun0".to_owned(), true)]);
    filter.attach_to(&["tun0", "eth9", "tun0"].map(str::to_owned));
    assert_eq!(modes(&filter), [("tun0".to_owned(), true), ("eth9".to_owned(), false)]);
    let one = "[filter]\ninterface = \"eth0\"\nallow_generic = true";
    let one = parse(Path::new("postern.toml"), one).unwrap().filter;
    assert_eq!(modes(&one), [("eth0".to_owned(), true)]);
    assert!(embedded().filter.attach.is_empty(), "the default route's");
}

#[test]
fn what_show_prints_is_read_again_and_means_the_same() {
    for text in [DEFAULT, EXAMPLE] {
        let config = parse(Path::new("postern.toml"), text).unwrap();
        let shown = toml::to_string(&show(&config)).unwrap();
        let again = parse(Path::new("shown.toml"), &shown).unwrap();
        assert_eq!(format!("{again:?}"), format!("{config:?}"), "{shown}");
    }
}

/// (what is written, what the error must say)
const WRONG: &[(&str, &[&str])] = &[
    ("[servr]", &["postern.toml:1:2", "servr"]),
    ("[server]\nhostname = 5", &["postern.toml:2:12"]),
    ("[server]\nstate_dir = \"var\"", &["2:13", "server.state_dir", "\"var\"", "absolute"]),
    ("[filter]\nenforce = \"ebpf\"", &["filter.enforce", "\"kernel\", \"userspace\""]),
    ("[filter]\nsyn_rate = -1", &["2:12", "filter.syn_rate", "0 to"]),
    ("[filter]\nsyn_burst = 0", &["2:13", "filter.syn_burst", "1 to"]),
    ("[filter]\ndeny_observed = [\"x\"]", &["filter.deny_observed", "x"]),
    ("[filter]\nmax_entries = 0", &["2:15", "filter.max_entries", "\"0\"", "1 to"]),
    (
        "[filter]\ninterface = \"eth0\"\n[[filter.attach]]\ninterface = \"eth1\"",
        &["postern.toml:2", "filter.interface", "[[filter.attach]]"],
    ),
    (
        "[[filter.attach]]\ninterface = \"eth1\"\n[[filter.attach]]\ninterface = \"eth1\"",
        &["filter.attach.interface", "named twice"],
    ),
    ("[[filter.attach]]\nallow_generic = true", &["filter.attach.interface", "missing"]),
    ("[filter]\ninterface = \"../x\"", &["filter.interface", "ip link"]),
    ("[filter]\ndeny = [\"192.0.2.1/24\"]", &["filter.deny", "192.0.2.0/24"]),
    ("[[listener]]\nname = \"a\"\naddress = [\"25\"]", &["3:12", "listener.address", "\"25\""]),
    ("[[listener]]\nname = \"a\"", &["1:1", "listener.address", "missing"]),
    (
        "[[listener]]\nname = \"a\"\naddress = [\"[::]:25\"]\n\n[[listener]]\naddress = [\"[::]:26\"]",
        &["5:1", "listener.name", "missing"],
    ),
    (
        "[[listener]]\nname = \"a\"\naddress = [\"[::]:25\"]\ntls = \"off\"\nauth = \"offer\"",
        &["listener.auth", "only inside TLS"],
    ),
    (
        "[[listener]]\nname = \"a\"\naddress = [\"[::]:25\"]\ntls = \"on\"",
        &["4:7", "listener.tls", "\"on\"", "\"implicit\""],
    ),
    (
        "[[listener]]\nname = \"a\"\naddress = [\"[::]:25\"]\nrelay_for = [\"0.0.0.0/0\"]",
        &["4:14", "listener.relay_for", "open relay", "I want an open relay"],
    ),
    (
        "[[listener]]\nname = \"a\"\naddress = [\"[::]:25\"]\nrelay_for = [\"0.0.0.0/1\", \"128.0.0.0/1\"]",
        &["open relay"],
    ),
    (
        "[[listener]]\nname = \"a\"\naddress = [\"[::]:25\"]\nopen_relay = \"yes\"",
        &["listener.open_relay", "\"yes\""],
    ),
    (
        "[[listener]]\nname = \"a\"\naddress = [\"[::]:25\"]\n[[listener]]\nname = \"a\"\naddress = [\"[::]:26\"]",
        &["5:8", "used twice"],
    ),
    ("[tls]\ncertificate = \"/a.pem\"", &["2:15", "tls.key", "missing"]),
    ("[[domain]]\nname = \"exa mple\"\nroute = \"relay\"", &["domain.name", "exa mple"]),
    ("[[domain]]\nname = \"example.org\"\nroute = \"inbound\"", &["inbound without a host"]),
    ("[[domain]]\nname = \"example.org\"\nroute = \"in\"", &["domain.route", "\"inbound\""]),
    ("[relay]\nsmart_host = \"a b\"", &["relay.smart_host", "\"a b\""]),
    (
        "[relay]\nsmart_host_account = \"us\"\nsmart_host_password_file = \"/p\"",
        &["2:22", "smart_host_tls", "verify"],
    ),
    ("[dns]\nservers = [\"ns1\"]", &["dns.servers", "\"ns1\""]),
    ("[relay]\nsmart_host_password_file = \"/p\"", &["2:28", "smart_host_account"]),
    ("[[dnsbl]]\nname = \"x\"", &["1:1", "dnsbl.zone", "missing"]),
    ("[[dnsbl]]\nzone = \"x.example\"\nlisted = [\"8.8.8.8\"]", &["dnsbl.listed", "8.8.8.8"]),
    ("[[feed]]\nname = \"Drop\"\nsource = \"/a\"", &["2:8", "feed.name", "a-z"]),
    ("[[feed]]\nname = \"a\"", &["1:1", "feed.source", "missing"]),
    (
        "[[feed]]\nname = \"a\"\nsource = \"http://a.example/\"",
        &["3:10", "feed.source", "without TLS"],
    ),
    ("[[feed]]\nname = \"a\"\nsource = \"https://u:p@a.example/\"", &["feed.source", "password"]),
    ("[[feed]]\nname = \"a\"\nsource = \"a.txt\"", &["feed.source", "absolute path"]),
    (
        "[[feed]]\nname = \"a\"\nsource = \"/a\"\nformat = \"csv\"",
        &["4:10", "feed.column", "missing"],
    ),
    (
        "[[feed]]\nname = \"a\"\nsource = \"/a\"\nca_file = \"/c\"",
        &["4:11", "feed.ca_file", "https"],
    ),
    ("[[feed]]\nname = \"a\"\nsource = \"/a\"\ncolumn = 1", &["feed.column", "csv"]),
    ("[[feed]]\nname = \"a\"\nsource = \"/a\"\nrefresh = \"59s\"", &["feed.refresh", "a minute"]),
    ("[[feed]]\nname = \"a\"\nsource = \"/a\"\nlease = \"1h\"", &["4:9", "feed.lease", "refresh"]),
    (
        "[[feed]]\nname = \"a\"\nsource = \"/a\"\nmax_shrink = \"101%\"",
        &["4:14", "feed.max_shrink", "50%"],
    ),
    (
        "[[feed]]\nname = \"a\"\nsource = \"/a\"\nmin_entries = 9\nmax_entries = 8",
        &["feed.min_entries", "lower"],
    ),
    (
        "[[feed]]\nname = \"a\"\nsource = \"/a\"\n[[feed]]\nname = \"a\"\nsource = \"/b\"",
        &["5:8", "feed.name", "used twice"],
    ),
    ("[ban]\nwindow = \"soon\"", &["ban.window", "10min"]),
    ("[ban]\nladder = [\"1h\", \"200years\"]", &["2:17", "ban.ladder", "200years", "hundred"]),
    ("[ban]\nladder = []", &["ban.ladder", "empty"]),
    (
        "[[domain]]\nname = \"a.example\"\nroute = \"inbound\"\nhost = [\"/run/x\"]",
        &["domain.host", "protocol = \"lmtp\""],
    ),
    ("[smtp]\nbare_newlines = \"keep\"", &["smtp.bare_newlines", "reject"]),
    ("[limits]\ncommand_line = \"100B\"", &["limits.command_line", "512B"]),
    ("[limits]\nsession_size = \"1KiB\"", &["limits.session_size", "at least 65536B"]),
    ("[limits]\nhops = 0", &["limits.hops", "write 1"]),
    ("[limits]\nmessage_size = \"big\"", &["limits.message_size", "50MiB"]),
    (
        "[[listener]]\nname = \"a\"\naddress = [\"[::]:25\"]\nproxy_protocol = [\"10.0.0.0/23\"]",
        &["4:19", "listener.proxy_protocol", "10.0.0.0/23", "your own hosts"],
    ),
    (
        "[[listener]]\nname = \"a\"\naddress = [\"[::]:25\"]\nproxy_protocol = [\"lb\"]",
        &["listener.proxy_protocol", "lb"],
    ),
    (
        "[[listener]]\nname = \"a\"\naddress = [\"[::]:25\"]\nxclient = [\"0.0.0.0/0\"]",
        &["4:12", "listener.xclient", "0.0.0.0/0", "wider than 256"],
    ),
    (
        "[[listener]]\nname = \"a\"\naddress = [\"[::]:25\"]\nxforward = [\"mx\"]",
        &["4:13", "listener.xforward", "mx"],
    ),
    ("[lmtp]\nsocket = \"lmtp.sock\"", &["2:10", "lmtp.socket", "begin it with /"]),
    ("[lmtp]\nsocket = \"/run/\"", &["lmtp.socket", "not the path of a file"]),
    ("[lmtp]\nsocket = \"/run/s\"\nmode = \"rw\"", &["3:8", "lmtp.mode", "rw", "0660"]),
    ("[lmtp]\nsocket = \"/run/s\"\nmode = \"1777\"", &["lmtp.mode", "1777", "0660"]),
    ("[lmtp]\nsocket = \"/run/s\"\nmode = \"0444\"", &["lmtp.mode", "nobody could connect"]),
    ("[lmtp]\nrelay_for_users = [\"list\"]", &["2:20", "lmtp.socket: missing", "write its path"]),
    ("[lmtp]\ngroup = \"mail\"", &["2:9", "lmtp.socket: missing"]),
    (
        "[[listener]]\nname = \"a\"\naddress = [\"127.0.0.1:25\"]\n\
         relay_for = [\"0.0.0.0/0\"]\nproxy_protocol = [\"127.0.0.1\"]",
        &["listener.relay_for", "would relay for the world"],
    ),
    (
        "[lmtp]\nsocket = \"/run/s\"\n[[listener]]\nname = \"lmtp\"\naddress = [\"[::]:25\"]",
        &["4:8", "listener.name", "lmtp", "another name"],
    ),
    ("[limits]\nreserve = 101", &["2:11", "limits.reserve", "101", "50%"]),
    ("[limits]\npregreet_wait = \"2min\"", &["2:17", "limits.pregreet_wait", "2min", "0s"]),
    ("[limits]\npregreet_wait = \"6\"", &["limits.pregreet_wait", "not a duration"]),
    ("[queue]\nexpire = \"0s\"", &["queue.expire", "shorter than a second"]),
    ("[log]\nlevel = \"loud\"", &["log.level", "\"info\""]),
];

#[test]
fn domains_may_be_written_in_utf_8() {
    let text = "[[domain]]\nname = \"*.M\u{fc}nchen.example\"\nroute = \"reject\"\n";
    let config = parse(Path::new("postern.toml"), text).unwrap();
    assert_eq!(config.domains[0].pattern, "*.xn--mnchen-3ya.example");
}

#[test]
fn what_is_wrong_is_named_with_place_value_and_remedy() {
    for (text, expected) in WRONG {
        let problem = problem(text);
        for part in *expected {
            assert!(problem.contains(part), "{text}\nsays: {problem}\nlacks: {part}");
        }
    }
}

#[test]
fn all_that_is_wrong_is_told_at_once_in_the_order_of_the_lines() {
    let problem =
        problem("[server]\nrun_dir = \"x\"\n[ban]\nwindow = \"y\"\n[log]\nformat = \"z\"");
    let keys: Vec<_> = problem.lines().map(|line| line.split(": ").nth(1).unwrap()).collect();
    assert!(keys[0].starts_with("server.run_dir"), "{problem}");
    assert!(keys[1].starts_with("ban.window"), "{problem}");
    assert!(keys[2].starts_with("log.format"), "{problem}");
}

#[test]
fn an_open_relay_needs_the_sentence() {
    let text = "[[listener]]\nname = \"a\"\naddress = [\"[::]:25\"]\nrelay_for = [\"::/0\"]\n\
                open_relay = \"I want an open relay\"";
    assert!(parse(Path::new("postern.toml"), text).unwrap().listeners[0].open_relay);
}
