//! What every request adds to, counted apart by each thread that counts.
//!
//! A number that all workers add to is a cache line that travels from core to core with each request. So each thread has a
//! shard of its own, and whoever reads adds them up: that is rare.

use super::families::{Family, SECONDS};
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use std::array;
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// How many of something began, how many ended in each of `N` ways, and how long they took.
#[derive(Debug)]
pub(super) struct Tally<const N: usize> {
    // Each made by the first that its threads count: of thousands of routes most are never asked.
    shards: [OnceLock<Box<Shard<N>>>; SHARDS],
}

/// What some threads counted. Alone in its cache lines; processors fetch two at a time.
#[derive(Debug)]
#[repr(align(128))]
struct Shard<const N: usize> {
    begun: AtomicU64,
    ended: [AtomicU64; N],
    /// How many took as long as each of [`BOUNDS`] at most, and longer than the one before; the last took longer than all.
    took: [AtomicU64; BOUNDS.len() + 1],
    nanoseconds: AtomicU64,
}

/// The tallies of everything of one kind, by name, as three families: how many ended, how long they took, how many are under
/// way.
#[derive(Debug, Clone)]
pub(super) struct Tallies<const N: usize>(Arc<Book<N>>);

#[derive(Debug)]
struct Book<const N: usize> {
    ended: Family,
    took: Family,
    under_way: Family,
    /// What the ways to end are called.
    ways: [&'static str; N],
    descriptions: Vec<Desc>,
    // Touched when a configuration is built and when the metrics are read, never per request.
    by_name: Mutex<HashMap<Box<str>, Arc<Tally<N>>>>,
}

// === impl Tally ===

impl<const N: usize> Tally<N> {
    fn new() -> Self {
        Tally { shards: [const { OnceLock::new() }; SHARDS] }
    }

    /// One began.
    #[inline]
    pub(super) fn begin(&self) {
        self.shard().begun.fetch_add(1, Ordering::Relaxed);
    }

    /// One ended in this way, after so long.
    #[inline]
    pub(super) fn end(&self, way: usize, took: Duration) {
        let shard = self.shard();
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.iter().position(|bound| nanoseconds <= *bound).unwrap_or(BOUNDS.len());
        shard.ended[way].fetch_add(1, Ordering::Relaxed);
        shard.took[bucket].fetch_add(1, Ordering::Relaxed);
        shard.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    /// How many have begun and not ended.
    pub(super) fn under_way(&self) -> u64 {
        // In this order, so that one that begins and ends meanwhile is not missing among those that began.
        let ended: u64 = self.ended().iter().sum();
        self.sum(|shard| &shard.begun).saturating_sub(ended)
    }

    fn ended(&self) -> [u64; N] {
        array::from_fn(|way| self.sum(|shard| &shard.ended[way]))
    }

    fn took(&self) -> Histogram {
        let mut histogram = Histogram::default();
        let mut count = 0;
        let mut up_to = |bucket: usize| {
            count += self.sum(|shard| &shard.took[bucket]);
            count
        };
        let buckets = SECONDS.iter().enumerate().map(|(at, bound)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(up_to(at));
            bucket
        });
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(up_to(SECONDS.len()));
        histogram.set_sample_sum(Duration::from_nanos(self.sum(|shard| &shard.nanoseconds)).as_secs_f64());
        histogram
    }

    fn sum(&self, of: impl Fn(&Shard<N>) -> &AtomicU64) -> u64 {
        let made = self.shards.iter().filter_map(OnceLock::get);
        made.fold(0, |sum, shard| sum.wrapping_add(of(shard).load(Ordering::Relaxed)))
    }

    /// This thread's own.
    #[inline]
    fn shard(&self) -> &Shard<N> {
        self.shards[place()].get_or_init(Box::default)
    }
}

impl<const N: usize> Default for Shard<N> {
    fn default() -> Self {
        let zero = |_| AtomicU64::new(0);
        Shard { begun: zero(0), ended: array::from_fn(zero), took: array::from_fn(zero), nanoseconds: zero(0) }
    }
}

/// Which of the shards this thread counts in.
#[inline]
fn place() -> usize {
    thread_local! {
        static PLACE: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    /// Threads that have a place.
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    let place = PLACE.get();
    if place < SHARDS {
        return place;
    }
    let place = THREADS.fetch_add(1, Ordering::Relaxed) % SHARDS;
    PLACE.set(place);
    place
}

// === impl Tallies ===

impl<const N: usize> Tallies<N> {
    /// None yet. Each of the families is labelled with a name first, and `ended` also with one of the `ways`.
    pub(super) fn new(ended: Family, took: Family, under_way: Family, ways: [&'static str; N]) -> Self {
        let describe = |family: &Family| {
            let labels = family.labels.iter().map(|label| (*label).to_owned()).collect();
            Desc::new(family.name.into(), family.help.into(), labels, HashMap::new()).ok()
        };
        let descriptions = [&ended, &took, &under_way].into_iter().filter_map(describe).collect();
        Tallies(Arc::new(Book { ended, took, under_way, ways, descriptions, by_name: Mutex::default() }))
    }

    /// The tally of that name: the same as before, unless it was removed.
    pub(super) fn of(&self, name: &str) -> Arc<Tally<N>> {
        Arc::clone(self.by_name().entry(name.into()).or_insert_with(|| Arc::new(Tally::new())))
    }

    /// Shows nothing of that name any more. What is still counted in its tally goes nowhere.
    pub(super) fn remove(&self, name: &str) {
        self.by_name().remove(name);
    }

    fn by_name(&self) -> MutexGuard<'_, HashMap<Box<str>, Arc<Tally<N>>>> {
        // A map of tallies is whole after any panic, so a poisoned lock is still good.
        self.0.by_name.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<const N: usize> Collector for Tallies<N> {
    fn desc(&self) -> Vec<&Desc> {
        self.0.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let book = &*self.0;
        let (mut ended, mut took, mut under_way) = (Vec::new(), Vec::new(), Vec::new());
        for (name, tally) in self.by_name().iter() {
            for (way, count) in book.ways.iter().zip(tally.ended()) {
                let mut counter = Counter::default();
                counter.set_value(count as f64);
                let mut metric = labelled(&book.ended, &[name, way]);
                metric.set_counter(counter);
                ended.push(metric);
            }
            let mut metric = labelled(&book.took, &[name]);
            metric.set_histogram(tally.took());
            took.push(metric);
            let mut gauge = Gauge::default();
            gauge.set_value(tally.under_way() as f64);
            let mut metric = labelled(&book.under_way, &[name]);
            metric.set_gauge(gauge);
            under_way.push(metric);
        }
        vec![
            family(&book.ended, MetricType::COUNTER, ended),
            family(&book.took, MetricType::HISTOGRAM, took),
            family(&book.under_way, MetricType::GAUGE, under_way),
        ]
    }
}

/// A metric with these values of its family's labels.
fn labelled(family: &Family, values: &[&str]) -> Metric {
    let pair = |(label, value): (&&str, &&str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*label).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    let mut pairs: Vec<LabelPair> = family.labels.iter().zip(values).map(pair).collect();
    pairs.sort_by(|one, other| one.name().cmp(other.name()));
    Metric::from_label(pairs)
}

fn family(family: &Family, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut shown = MetricFamily::default();
    shown.set_name(family.name.into());
    shown.set_help(family.help.into());
    shown.set_field_type(kind);
    shown.set_metric(metrics);
    shown
}

/// Shards of a tally; with more threads than that some share one.
const SHARDS: usize = 16;

/// [`SECONDS`] in nanoseconds.
#[allow(clippy::cast_sign_loss, reason = "no bound is negative")]
const BOUNDS: [u64; SECONDS.len()] = {
    let mut bounds = [0; SECONDS.len()];
    let mut at = 0;
    while at < bounds.len() {
        bounds[at] = (SECONDS[at] * 1e9) as u64;
        at += 1;
    }
    bounds
};

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn what_threads_count_apart_is_one_count() {
        let tally = Tally::<2>::new();
        thread::scope(|scope| {
            for _ in 0..2 * SHARDS {
                scope.spawn(|| {
                    tally.begin();
                    tally.begin();
                    tally.end(1, Duration::from_millis(5));
                });
            }
        });
        let threads = 2 * SHARDS as u64;
        assert_eq!((tally.ended(), tally.under_way()), ([0, threads], threads));
        let took = tally.took();
        assert_eq!(took.get_sample_count(), threads);
        assert!((took.get_sample_sum() - threads as f64 * 0.005).abs() < 1e-9);
        // A bound belongs to what is not longer.
        let up_to = |bound: f64| took.get_bucket().iter().find(|bucket| bucket.upper_bound() >= bound);
        assert_eq!(up_to(0.005).map(Bucket::cumulative_count), Some(threads));
        assert_eq!(up_to(0.002_5).map(Bucket::cumulative_count), Some(0));
    }

    #[test]
    fn what_takes_longer_than_every_bound_is_counted_all_the_same() {
        let tally = Tally::<1>::new();
        tally.end(0, Duration::from_hours(1));
        let took = tally.took();
        assert_eq!((took.get_sample_count(), took.get_bucket().last().map(Bucket::cumulative_count)), (1, Some(0)));
        assert_eq!(tally.under_way(), 0, "who ends without having begun leaves nobody");
    }
}
