//! Files that the configuration names are part of it: a change of one of them alone is a reload.

use crate::authority::{Authority, Pair, visit};
use crate::world::{Wire, page, wait_until};
use rustls::pki_types::CertificateDer;
use serde_json::Value;
use sluice::config::ProcessEnvironment;
use sluice::gateway::{self, Source};
use sluice::watch::Watch;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::TempDir;

/// A gateway whose configuration is watched. Fields are dropped in this order: the watch, then what it looks at.
struct Watched {
    _watch: Watch,
    gateway: Option<gateway::Gateway>,
    /// How often the watch has looked.
    looks: Arc<AtomicUsize>,
    folder: TempDir,
}

impl Watched {
    /// Starts from `yaml`, beside which `prepare` has put what it names.
    fn start(yaml: &str, prepare: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        prepare(folder.path());
        fs::write(folder.path().join("gateway.yaml"), whole(yaml, folder.path())).expect("writable");
        let source = Source { path: folder.path().join("gateway.yaml"), environment: Arc::new(ProcessEnvironment) };
        let gateway = gateway::Gateway::start(source).unwrap_or_else(|error| panic!("{error}"));
        let looks = Arc::new(AtomicUsize::new(0));
        let (look, counted) = (gateway.reloader(), Arc::clone(&looks));
        let changed = move || {
            look();
            counted.fetch_add(1, Ordering::SeqCst);
        };
        let watch = Watch::start(gateway.files(), changed).expect("folders can be watched");
        Watched { _watch: watch, gateway: Some(gateway), looks, folder }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn gateway(&self) -> &gateway::Gateway {
        self.gateway.as_ref().expect("it runs until it is dropped")
    }

    /// Replaces the configuration.
    fn rewrite(&self, yaml: &str) {
        save(&self.at("gateway.yaml"), &whole(yaml, self.folder.path()));
    }

    /// What the route answers.
    fn says(&self) -> String {
        get(self.gateway().address("web").expect("a listener"))
    }

    fn page(&self, path: &str) -> String {
        page(self.gateway().admin_address(), path)
    }

    /// `/api/v1/config`.
    fn status(&self) -> Value {
        serde_json::from_str(&self.page("/api/v1/config")).expect("JSON")
    }

    /// Waits until a reload was rejected.
    fn wait_for_rejection(&self) {
        wait_until("an attempt is rejected", || {
            self.page("/metrics").contains("sluice_config_last_reload_successful 0\n")
        });
    }

    /// Why the latest reload was rejected; empty where it was not.
    fn rejection(&self) -> String {
        self.status()["on_disk"]["error"]["message"].as_str().unwrap_or_default().to_owned()
    }

    /// The certificate that a new client is shown.
    fn shown(&self, authority: &Authority) -> CertificateDer<'static> {
        let web = self.gateway().address("web").expect("a listener");
        visit(web, &authority.client(None), "a.test").expect("it is trusted").certificate
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(gateway) = self.gateway.take() {
            gateway.stop();
        }
    }
}

/// `yaml` with what every test needs.
fn whole(yaml: &str, folder: &Path) -> String {
    let log = folder.join("log");
    format!(
        "version: 1\nworkers: 1\nadmin: {{ bind: \"127.0.0.1:0\" }}\nlog: {{ access: false, file: \"{}\" }}\n{yaml}",
        log.display()
    )
}

/// Replaces `file` as a careful writer does.
fn save(file: &Path, text: &str) {
    let beside = file.with_extension("new");
    fs::write(&beside, text).expect("writable");
    fs::rename(&beside, file).expect("a rename");
}

fn get(address: SocketAddr) -> String {
    let mut wire = Wire::connect(address);
    wire.send("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    wire.answer().text()
}

/// The files of `pair` as the two that [`SECURED`] names.
fn copy(pair: &Pair, folder: &Path) {
    fs::create_dir_all(folder).expect("a folder");
    fs::copy(&pair.cert, folder.join("site.pem")).expect("writable");
    fs::copy(&pair.key, folder.join("site.key")).expect("writable");
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).expect("readable")
}

const SECURED: &str = "
listeners: [ { name: web, bind: \"127.0.0.1:0\", tls: { certificates: [ { cert: tls/site.pem, key: tls/site.key } ] } } ]
routes: [ { name: all, respond: {} } ]
";

/// A gateway that answers what the file `name` holds.
fn telling(name: &str, watch: bool) -> String {
    format!(
        "
listeners: [ {{ name: web, bind: \"127.0.0.1:0\" }} ]
reload: {{ watch: {watch} }}
routes: [ {{ name: all, respond: {{ body: \"${{file:{name}}}\" }} }} ]
"
    )
}

#[test]
fn a_file_that_is_named_is_taken_over_when_it_alone_changes() {
    let watched =
        Watched::start(&telling("word", true), |folder| fs::write(folder.join("word"), "one").expect("writable"));
    assert_eq!(watched.says(), "one");
    let hash = watched.status()["applied"]["hash"].clone();
    for word in ["two", "three"] {
        save(&watched.at("word"), word);
        wait_until("the word is applied", || watched.says() == word);
    }
    assert_eq!(watched.status()["applied"]["hash"], hash, "the configuration itself is the same");
}

#[test]
fn a_file_that_only_a_rejected_attempt_named_is_waited_for() {
    let watched =
        Watched::start(&telling("word", true), |folder| fs::write(folder.join("word"), "one").expect("writable"));
    watched.rewrite(&telling("secrets/word", true));
    watched.wait_for_rejection();
    assert!(watched.rejection().contains("secrets/word` cannot be read"));
    assert_eq!(watched.says(), "one");
    fs::create_dir(watched.at("secrets")).expect("a folder");
    fs::write(watched.at("secrets/word"), "two").expect("writable");
    wait_until("the file is there", || watched.says() == "two");
    assert_eq!(watched.rejection(), "");
}

#[test]
fn without_a_watch_nothing_is_taken_over_by_itself() {
    let watched =
        Watched::start(&telling("word", false), |folder| fs::write(folder.join("word"), "one").expect("writable"));
    save(&watched.at("word"), "two");
    wait_until("the watch has looked", || watched.looks.load(Ordering::SeqCst) > 0);
    assert_eq!(watched.says(), "one");
    watched.gateway().reload().expect("a valid file");
    assert_eq!(watched.says(), "two");
}

#[test]
fn a_new_pair_that_is_written_one_file_after_the_other_settles_by_itself() {
    let authority = Authority::new();
    let [first, second] = ["first", "second"].map(|name| authority.sign(name, &["a.test"]));
    let watched = Watched::start(SECURED, |folder| copy(&first, &folder.join("tls")));
    assert_eq!(watched.shown(&authority), first.chain()[0]);

    save(&watched.at("tls/site.pem"), &read(&second.cert));
    watched.wait_for_rejection();
    assert!(watched.rejection().contains("the key does not belong to the certificate"));
    assert!(watched.page("/readyz?verbose").contains("the latest reload was rejected"));
    assert_eq!(watched.shown(&authority), first.chain()[0], "the old pair stays");

    save(&watched.at("tls/site.key"), &read(&second.key));
    wait_until("the pair is shown", || watched.shown(&authority) == second.chain()[0]);
    wait_until("all is well again", || watched.page("/metrics").contains("sluice_config_last_reload_successful 1\n"));
    assert_eq!(watched.rejection(), "");
}

#[test]
fn a_pair_that_kubernetes_swaps_is_taken_over_each_time() {
    let authority = Authority::new();
    let pairs = ["0", "1", "2"].map(|name| authority.sign(name, &["a.test"]));
    let write = |mount: &Path, version: usize| {
        copy(&pairs[version], &mount.join(format!("..{version}")));
        symlink(format!("..{version}"), mount.join("..data_tmp")).expect("a link");
        fs::rename(mount.join("..data_tmp"), mount.join("..data")).expect("a rename");
    };
    let watched = Watched::start(SECURED, |folder| {
        let mount = folder.join("tls");
        write(&mount, 0);
        symlink("..data/site.pem", mount.join("site.pem")).expect("a link");
        symlink("..data/site.key", mount.join("site.key")).expect("a link");
    });
    for (version, pair) in pairs.iter().enumerate().skip(1) {
        write(&watched.at("tls"), version);
        fs::remove_dir_all(watched.at(&format!("tls/..{}", version - 1))).expect("the old folder goes");
        wait_until("the pair is shown", || watched.shown(&authority) == pair.chain()[0]);
    }
    assert_eq!(watched.rejection(), "");
}
