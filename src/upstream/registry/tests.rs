use super::*;
use crate::config::UnknownEnvironment;
use crate::observe::Exposition;
use crate::policy::circuit::Forced;

const FILE: &str = "
listeners: [{ name: l, bind: \"127.0.0.1:0\" }]
providers: { alpha: { url: \"http://api.test:80\", discover: dns }, beta: { url: \"http://127.0.0.1:1\" } }
pools: { p: { providers: [alpha, beta] } }
routes: [{ name: r, pool: p }]
";

/// A registry over [`FILE`]; as it has no upkeep, the tests say what is discovered.
struct World {
    registry: Registry,
    metrics: Metrics,
}

impl World {
    fn new() -> Self {
        let mut world = World { registry: Registry::default(), metrics: Metrics::new() };
        world.reload(FILE);
        world
    }

    fn reload(&mut self, file: &str) {
        let loaded = config::parse("", file.as_bytes(), &UnknownEnvironment).unwrap_or_else(|error| panic!("{error}"));
        let (registry, _) = self.registry.build(&loaded.config, 1, &self.metrics).expect("it can be built");
        registry.take_effect(&self.registry, clock::now());
        self.registry = registry;
    }

    fn discover(&self, last: &[u8]) {
        let addresses: Vec<_> = last.iter().map(|last| SocketAddr::from(([10, 0, 0, *last], 80))).collect();
        self.registry.discovered(&self.registry.families["alpha"], &addresses, &self.metrics, clock::now());
    }

    fn order(&self, change: &Change<'_>) {
        self.registry.apply(change);
    }

    /// Who there is of `alpha`: the last part of the address, what its circuit is forced to, whether it is drained.
    fn orders(&self) -> Vec<(String, Option<Forced>, bool)> {
        let of = |provider: Arc<Provider>| {
            let now = clock::now();
            let forced = provider.state.breaker.view(now).forced();
            (provider.name.to_string(), forced, provider.state.view(now).draining)
        };
        self.registry.behind("alpha").into_iter().map(of).collect()
    }
}

fn each(names: &[&str], forced: Option<Forced>, drained: bool) -> Vec<(String, Option<Forced>, bool)> {
    names.iter().map(|name| ((*name).to_owned(), forced, drained)).collect()
}

const ONE: &str = "alpha@10.0.0.1:80";
const TWO: &str = "alpha@10.0.0.2:80";

#[test]
fn what_an_operator_says_of_a_provider_holds_for_every_member_also_for_those_that_come_later() {
    let mut world = World::new();
    world.order(&Change::Circuit("alpha", Some(Forced::Open)));
    assert_eq!(world.orders(), each(&["alpha"], Some(Forced::Open), false));
    world.discover(&[1]);
    assert_eq!(world.orders(), each(&[ONE], Some(Forced::Open), false));
    world.order(&Change::Drain("alpha", true));
    world.discover(&[1, 2]);
    assert_eq!(world.orders(), each(&[ONE, TWO], Some(Forced::Open), true));
    // A reload that leads elsewhere begins another family; it is steered all the same.
    world.reload(&FILE.replace("api.test", "other.test"));
    assert_eq!(world.orders(), each(&["alpha"], Some(Forced::Open), true));
    world.discover(&[2]);
    assert_eq!(world.orders(), each(&[TWO], Some(Forced::Open), true));
    world.order(&Change::Circuit("alpha", None));
    world.order(&Change::Drain("alpha", false));
    assert_eq!(world.orders(), each(&[TWO], None, false));
    let now = clock::now();
    let [beta] = &world.registry.behind("beta")[..] else { panic!("beta is one") };
    assert!(!beta.state.view(now).draining && beta.state.breaker.view(now).forced().is_none());
}

#[test]
fn members_have_series_of_their_own_for_as_long_as_they_are_there() {
    let world = World::new();
    world.discover(&[1, 2]);
    for member in world.registry.behind("alpha") {
        member.metrics.begin();
    }
    let retain = || {
        let everyone = world.registry.everyone();
        let names: Vec<&str> = everyone.iter().map(|member| &*member.name).chain(["alpha"]).collect();
        world.metrics.retain(&["r"], &names, &["p"], &["l"]);
        world.metrics.render(Exposition::Prometheus).1
    };
    let in_flight = |name| format!("sluice_in_flight{{provider=\"{name}\"}} 1");
    let page = retain();
    assert!(page.contains(&in_flight(ONE)) && page.contains(&in_flight(TWO)), "{page}");
    world.discover(&[2]);
    let page = retain();
    assert!(!page.contains(ONE) && page.contains(&in_flight(TWO)), "{page}");
}
