//! The registry holds for every kind, and for one that only this test build has.

use super::{KINDS, LiveAdapter, Shared, fake, kind};
use crate::config::parse;
use std::path::Path;
use wharfinger_core::Millis;

/// A file with one pool of each kind that needs nothing outside of this machine.
const POOLS: &str = r#"
[[pool]]
name = "here"
adapter = "local"
[[pool]]
name = "work"
adapter = "copies"
on = "here"
copies.repository = "/srv/a.git"
[[pool]]
name = "memory"
adapter = "fake"
fake.seed = 7
"#;

#[test]
fn settings_know_the_traits_of_their_adapter() {
    let loaded = parse(Path::new("/srv/w/wharfinger.toml"), POOLS).unwrap();
    assert_eq!(loaded.pools.len(), 3);
    for pool in &loaded.pools {
        let settings = loaded.adapters[&*pool.name].settings();
        let live = settings.make(&pool.name, &Shared::new()).unwrap();
        assert_eq!(live.adapter().traits(), pool.traits, "{}", pool.name);
    }
}

/// One entry in the list of kinds is all that a new kind needs: the file, its defaults, its mistakes, its adapter.
#[test]
fn a_kind_is_registered_in_one_place() {
    let loaded = parse(Path::new("/srv/w/wharfinger.toml"), POOLS).unwrap();
    let pool = &loaded.pools[2];
    assert_eq!((&*pool.adapter, pool.max, pool.idle), ("fake", 3, None));
    assert_eq!(pool.timeouts.check, Millis::secs(30));
    assert_eq!(loaded.adapters["memory"].downcast::<fake::Config>(), Some(&fake::Config { seed: 7 }));
    let refused = parse(Path::new("w.toml"), &POOLS.replace("seed = 7", "seed = 13")).unwrap_err().to_string();
    assert!(refused.contains("`seed` is 13") && refused.contains("w.toml:13:13"), "{refused}");
    let refused = parse(Path::new("w.toml"), &POOLS.replace("seed = 7", "sead = 7")).unwrap_err().to_string();
    assert!(refused.contains("did you mean `seed`?"), "{refused}");
}

#[test]
fn kinds_have_names_of_their_own_and_tables_with_keys() {
    for one in KINDS {
        assert_eq!(kind(one.name()).map(|found| found.name()), Some(one.name()));
        assert_eq!(KINDS.iter().filter(|other| other.name() == one.name()).count(), 1);
        for (title, keys) in one.tables() {
            assert!(title.contains(&format!("pool.{}", one.name())) && !keys.is_empty(), "{title}");
        }
    }
}

#[test]
fn settings_of_different_kinds_are_never_equal() {
    let loaded = parse(Path::new("/srv/w/wharfinger.toml"), POOLS).unwrap();
    let again = parse(Path::new("/srv/w/wharfinger.toml"), POOLS).unwrap();
    let other = parse(Path::new("/srv/w/wharfinger.toml"), &POOLS.replace("seed = 7", "seed = 8")).unwrap();
    assert_eq!(loaded.adapters, again.adapters);
    assert_ne!(loaded.adapters["memory"], other.adapters["memory"]);
    assert_ne!(loaded.adapters["memory"], loaded.adapters["here"]);
}

/// A change of the inventory is for the live adapter of an ssh pool alone.
#[test]
fn a_plain_adapter_is_made_anew_for_other_settings() {
    let loaded = parse(Path::new("/srv/w/wharfinger.toml"), POOLS).unwrap();
    let live: std::sync::Arc<dyn LiveAdapter> =
        loaded.adapters["memory"].settings().make("memory", &Shared::new()).unwrap();
    assert!(live.change(&loaded.adapters["memory"]).is_none());
}
