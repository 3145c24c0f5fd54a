//! Which keys exist where, with an example of each. It is the one list behind unknown-key reports, suggestions and
//! remedies; the meaning of the values lives in `read`.

use super::suggest::nearest;

/// What a key holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A string or a number.
    Value,
    /// `[name]`, at most once.
    Section,
    /// `[[name]]`, any number of times.
    Sections,
    /// `[name.X]`, any number of times with names that the operator gives.
    Named,
    /// `{ x = … }` with names that the operator gives.
    Entries,
}

/// A key of a room.
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// The value as it would stand in the file; empty for sections.
    pub(super) example: &'static str,
}

/// One section of the file and the keys in it.
pub(super) struct Room {
    /// The dotted path of the section; empty for the top level.
    path: &'static str,
    many: bool,
    pub(super) keys: &'static [Key],
}

const fn value(name: &'static str, example: &'static str) -> Key {
    Key { name, kind: Kind::Value, example }
}

const fn section(name: &'static str) -> Key {
    Key { name, kind: Kind::Section, example: "" }
}

const fn sections(name: &'static str) -> Key {
    Key { name, kind: Kind::Sections, example: "" }
}

const fn named(name: &'static str) -> Key {
    Key { name, kind: Kind::Named, example: "" }
}

const fn entries(name: &'static str, example: &'static str) -> Key {
    Key { name, kind: Kind::Entries, example }
}

pub(super) static ROOT: Room = Room {
    path: "",
    many: false,
    keys: &[
        value("schema_version", "1"),
        section("agent"),
        sections("interface"),
        section("table"),
        section("timeouts"),
        sections("service"),
        section("vrrp"),
        sections("vip"),
        sections("track"),
        named("director"),
        section("sync"),
    ],
};

pub(super) static AGENT: Room = Room {
    path: "agent",
    many: false,
    keys: &[
        value("pin_dir", "\"/sys/fs/bpf/lb\""),
        value("control_socket", "\"/run/lb/agent.sock\""),
        value("metrics", "\"127.0.0.1:9180\""),
        value("log", "\"info\""),
    ],
};

pub(super) static INTERFACE: Room =
    Room { path: "interface", many: true, keys: &[value("name", "\"eth0\""), value("mode", "\"auto\"")] };

pub(super) static TABLE: Room = Room {
    path: "table",
    many: false,
    keys: &[
        value("conns", "100_000"),
        value("half_open", "65_536"),
        value("services", "64"),
        value("backends", "1024"),
    ],
};

pub(super) static TIMEOUTS: Room = Room {
    path: "timeouts",
    many: false,
    keys: &[
        value("syn_recv", "\"60s\""),
        value("established", "\"8h1m\""),
        value("fin_wait", "\"120s\""),
        value("close_wait", "\"60s\""),
        value("time_wait", "\"120s\""),
        value("close", "\"10s\""),
    ],
};

pub(super) static SERVICE: Room = Room {
    path: "service",
    many: true,
    keys: &[
        value("name", "\"mysql\""),
        value("listen", "\"10.80.1.243:3306\""),
        value("scheduler", "\"rr\""),
        value("no_conn", "\"drop\""),
        value("no_backend", "\"rst\""),
        value("on_down", "\"rst\""),
        section("check"),
        sections("backend"),
    ],
};

pub(super) static BACKEND: Room = Room {
    path: "service.backend",
    many: true,
    keys: &[
        value("address", "\"192.168.80.167:3306\""),
        value("weight", "1"),
        value("backup", "false"),
        value("sorry", "false"),
        value("slow_start", "\"30s\""),
        value("drain_deadline", "\"10m\""),
        value("max_conn", "500"),
    ],
};

pub(super) static CHECK: Room = Room {
    path: "service.check",
    many: false,
    keys: &[
        value("level", "\"auth\""),
        value("user", "\"lb_check\""),
        value("password_file", "\"/etc/lb/check.pw\""),
        value("tls", "\"prefer\""),
        value("tls_ca", "\"/etc/lb/mysql-ca.pem\""),
        value("tls_name", "\"db.example.org\""),
        value("condition", "\"writable\""),
        value("max_lag", "\"30s\""),
        value("sql", "\"SELECT 1\""),
        value("expect", "\"1\""),
        value("inter", "\"1s\""),
        value("fastinter", "\"500ms\""),
        value("downinter", "\"1s\""),
        value("timeout", "\"1s\""),
        value("rise", "2"),
        value("fall", "3"),
        value("jitter", "10"),
        value("relogin", "\"5s\""),
    ],
};

pub(super) static VRRP: Room = Room {
    path: "vrrp",
    many: false,
    keys: &[
        value("version", "3"),
        value("advert", "\"100ms\""),
        value("auth", "\"1111\""),
        value("checksum", "\"rfc9568\""),
        value("preempt", "false"),
        value("preempt_delay", "\"30s\""),
        value("strict", "false"),
        value("virtual_mac", "false"),
        value("unicast", "false"),
        value("notify", "\"/etc/lb/notify\""),
    ],
};

pub(super) static VIP: Room = Room {
    path: "vip",
    many: true,
    keys: &[value("address", "\"10.80.1.243/24\""), value("interface", "\"eth0\""), value("vrid", "52")],
};

pub(super) static TRACK: Room = Room {
    path: "track",
    many: true,
    keys: &[
        value("script", "\"/etc/lb/check-disk\""),
        value("process", "\"mysqlrouter\""),
        value("interval", "\"2s\""),
        value("timeout", "\"2s\""),
        value("rise", "2"),
        value("fall", "2"),
    ],
};

pub(super) static DIRECTOR: Room = Room {
    path: "director.NAME",
    many: false,
    keys: &[value("priority", "100"), entries("addresses", "{ eth0 = \"10.80.1.241\" }")],
};

pub(super) static SYNC: Room = Room {
    path: "sync",
    many: false,
    keys: &[
        value("interface", "\"sync0\""),
        value("group", "\"239.255.80.81:8848\""),
        value("peer", "\"unicast\""),
        value("key_file", "\"/etc/lb/sync.key\""),
        value("insecure", "false"),
        value("heartbeat", "\"50ms\""),
        value("heartbeat_lost_after", "3"),
        value("wait", "\"30s\""),
        value("refresh", "\"30s\""),
    ],
};

static ROOMS: [&Room; 13] =
    [&ROOT, &AGENT, &INTERFACE, &TABLE, &TIMEOUTS, &SERVICE, &BACKEND, &CHECK, &VRRP, &VIP, &TRACK, &DIRECTOR, &SYNC];

/// What other balancers call it, and where it is here.
const FOREIGN: [(&str, &str); 42] = [
    ("virtual_server", "[[service]]"),
    ("virtual", "[[service]]"),
    ("real_server", "[[service.backend]]"),
    ("real", "[[service.backend]]"),
    ("server", "[[service.backend]]"),
    ("lb_algo", "`scheduler` of [[service]]"),
    ("lvs_sched", "`scheduler` of [[service]]"),
    ("algorithm", "`scheduler` of [[service]]"),
    ("balance", "`scheduler` of [[service]]"),
    ("bind", "`listen` of [[service]]"),
    ("virtual_ipaddress", "[[vip]]"),
    ("vrrp_instance", "[vrrp] with a [[vip]] for each address"),
    ("vrrp_sync_group", "always so: all [[vip]]s move together"),
    ("virtual_router_id", "`vrid` of [[vip]]"),
    ("advert_int", "`advert` of [vrrp]"),
    ("auth_type", "`auth` of [vrrp], the password itself,"),
    ("auth_pass", "`auth` of [vrrp]"),
    ("authentication", "`auth` of [vrrp]"),
    ("nopreempt", "`preempt = false` of [vrrp], which is the default,"),
    ("use_vmac", "`virtual_mac` of [vrrp]"),
    ("unicast_peer", "`unicast` of [vrrp] with `addresses` of [director.NAME]"),
    ("vrrp_script", "[[track]]"),
    ("track_script", "[[track]]"),
    ("track_process", "[[track]]"),
    ("lvs_sync_daemon", "[sync] with `interface`"),
    ("mcast_group", "`group` of [sync]"),
    ("TCP_CHECK", "[service.check] with `level = \"tcp\"`"),
    ("MISC_CHECK", "[service.check]"),
    ("checktype", "`level` of [service.check]"),
    ("login", "`user` of [service.check]"),
    ("passwd", "`password_file` of [service.check], for a file with the password,"),
    ("password", "`password_file` of [service.check], for a file with the password,"),
    ("request", "`sql` of [service.check]"),
    ("delay_loop", "`inter` of [service.check]"),
    ("checkinterval", "`inter` of [service.check]"),
    ("checktimeout", "`timeout` of [service.check]"),
    ("connect_timeout", "`timeout` of [service.check]"),
    ("failurecount", "`fall` of [service.check]"),
    ("sorry_server", "a [[service.backend]] with `sorry = true`"),
    ("fallback", "a [[service.backend]] with `sorry = true`"),
    ("slowstart", "`slow_start` of [[service.backend]]"),
    ("warmup", "`slow_start` of [[service.backend]]"),
];

/// What to do about an unknown key.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Remedy {
    pub(super) help: String,
    /// The key of the same room that was meant, if it was one.
    pub(super) meant: Option<&'static str>,
}

impl Room {
    /// How a person names the section: `[agent]`, `[[service.backend]]`, `the top level`.
    pub(super) fn title(&self) -> String {
        if self.path.is_empty() { String::from("the top level") } else { brackets(self.path, self.many) }
    }

    /// Where a key of this room stands, for a message: `in [agent]`, `at the top level`.
    pub(super) fn place(&self) -> String {
        let preposition = if self.path.is_empty() { "at" } else { "in" };
        format!("{preposition} {}", self.title())
    }

    /// A child section's header as it stands in the file.
    pub(super) fn child_title(&self, name: &str, many: bool) -> String {
        if self.path.is_empty() { brackets(name, many) } else { brackets(&format!("{}.{name}", self.path), many) }
    }

    /// What to do about a key that this room does not have; `is_section` tells how it was used.
    pub(super) fn remedy_for_unknown(&self, name: &str, is_section: bool) -> Remedy {
        let elsewhere = |help: String| Remedy { help, meant: None };
        if let Some((_, ours)) = FOREIGN.iter().find(|(foreign, _)| *foreign == name) {
            return elsewhere(format!("that is {ours} here"));
        }
        let same_use = |key: &&Key| (key.kind != Kind::Value) == is_section;
        let all = || ROOMS.iter().flat_map(|room| room.keys.iter().filter(same_use).map(move |key| (*room, key)));
        let homes: Vec<_> = all().filter(|(_, key)| key.name == name).collect();
        if let Some((home, key)) = homes.first() {
            if is_section {
                return elsewhere(format!("write {}", home.show(key)));
            }
            let titles: Vec<String> = homes.iter().map(|(home, _)| home.title()).collect();
            let order = if !self.path.is_empty() && self.path.starts_with(home.path) {
                format!(": put it above the first {}", self.title())
            } else {
                String::new()
            };
            return elsewhere(format!("`{name}` belongs in {}{order}", titles.join(" or ")));
        }
        // A key of this room first, whatever its use; then one of the same use in another.
        let near = |keys: &mut dyn Iterator<Item = &'static Key>| {
            let keys: Vec<&'static Key> = keys.collect();
            let word = nearest(name, keys.iter().map(|key| key.name))?;
            keys.into_iter().find(|key| key.name == word)
        };
        if let Some(key) = near(&mut self.keys.iter()) {
            return Remedy { help: format!("did you mean {}?", self.show(key)), meant: Some(key.name) };
        }
        let found = near(&mut all().map(|(_, key)| key)).and_then(|near| all().find(|(_, key)| key.name == near.name));
        match found {
            Some((room, key)) if is_section => elsewhere(format!("did you mean {}?", room.show(key))),
            Some((room, key)) => elsewhere(format!("did you mean {} of {}?", room.show(key), room.title())),
            None => {
                let known: Vec<String> = self.keys.iter().map(|key| self.show(key)).collect();
                elsewhere(format!("remove it; known here: {}", known.join(", ")))
            }
        }
    }

    /// A key of this room as it is written: `weight`, `[agent]`, `[[service.backend]]`.
    fn show(&self, key: &Key) -> String {
        match key.kind {
            Kind::Value | Kind::Entries => format!("`{}`", key.name),
            Kind::Named => self.child_title(&format!("{}.NAME", key.name), false),
            kind => self.child_title(key.name, kind == Kind::Sections),
        }
    }
}

fn brackets(path: &str, many: bool) -> String {
    if many { format!("[[{path}]]") } else { format!("[{path}]") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_gets_the_most_useful_remedy() {
        for (room, name, is_section, remedy) in [
            (&BACKEND, "adress", false, "did you mean `address`?"),
            (
                &BACKEND,
                "scheduler",
                false,
                "`scheduler` belongs in [[service]]: put it above the first [[service.backend]]",
            ),
            (&SERVICE, "weight", false, "`weight` belongs in [[service.backend]]"),
            (&AGENT, "name", false, "`name` belongs in [[interface]] or [[service]]"),
            (&ROOT, "pin_dir", false, "`pin_dir` belongs in [agent]"),
            (&ROOT, "pindir", false, "did you mean `pin_dir` of [agent]?"),
            (&ROOT, "services", true, "did you mean [[service]]?"),
            (&ROOT, "timeout", true, "did you mean [timeouts]?"),
            (&ROOT, "backend", true, "write [[service.backend]]"),
            (&ROOT, "backends", true, "did you mean [[service.backend]]?"),
            (&SERVICE, "backends", true, "did you mean [[service.backend]]?"),
            (&ROOT, "virtual_server", true, "that is [[service]] here"),
            (&SERVICE, "lb_algo", false, "that is `scheduler` of [[service]] here"),
            (&INTERFACE, "colour", false, "remove it; known here: `name`, `mode`"),
        ] {
            assert_eq!(room.remedy_for_unknown(name, is_section).help, remedy, "{name} in {}", room.title());
        }
    }
}
