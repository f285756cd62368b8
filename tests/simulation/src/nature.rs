//! What is the same for all processes of a run: time, chance, weather, and who writes down what happens.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};
use tokio::time::Instant;

use crate::{
    climate::{Climate, Fate},
    witness::Owners,
};

/// What the wall clock shows when a run begins: microseconds since 1970.
const BEGINNING_MICROS: u64 = 1_700_000_000_000_000;
/// In how many runs the power fails, in parts of all.
const POWER_CUTS: f64 = 0.1;
/// In how many there are rows that the database refuses for good.
const POISON: f64 = 0.2;
/// How many of all seeds have an operator who stops things.
const OPERATOR: f64 = 0.2;
/// In how many some writes are sent as streams.
const STREAMS: f64 = 0.3;

/// In how many somebody watches, where the power does not fail.
const WATCHERS: f64 = 0.3;

/// How long what a drain says of its progress is on its way, at most.
const SLOW_UPKEEP: Duration = Duration::from_millis(1500);

/// Which of the three stores is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The hot store.
    Hot,
    /// The event log.
    Log,
    /// The database.
    Database,
}

impl Place {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Hot, Self::Log, Self::Database];
}

/// What all processes of a run share. Everything that is decided here is decided by the seed.
pub struct Nature {
    rng: Mutex<SmallRng>,
    climate: Climate,
    began: Instant,
    wall_offset_micros: AtomicI64,
    calm: AtomicBool,
    outages: Mutex<[Option<Instant>; 3]>,
    under_way: AtomicUsize,
    losses: AtomicUsize,
    pub(crate) owners: Owners,
    complaints: Mutex<Vec<String>>,
    trace: Option<Mutex<Vec<String>>>,
}

impl Nature {
    /// The nature of a seed; with `trace` it remembers every call.
    pub fn new(seed: u64, trace: bool) -> Arc<Self> {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut climate = Climate::draw(&mut rng);
        // By a chance of its own, so that all other seeds are what they were before there were power cuts.
        if SmallRng::seed_from_u64(!seed).random_bool(POWER_CUTS) {
            climate = climate.with_power_cuts();
        }
        if SmallRng::seed_from_u64(seed.rotate_left(32) ^ u64::MAX).random_bool(POISON) {
            climate = climate.with_poison();
        }
        if SmallRng::seed_from_u64(seed.rotate_left(16) ^ u64::MAX).random_bool(OPERATOR) {
            climate = climate.with_operator();
        }
        if SmallRng::seed_from_u64(seed.rotate_left(48) ^ u64::MAX).random_bool(STREAMS) {
            climate = climate.with_streams();
        }
        // What was told is to be kept by the log, which power cuts make lose its end.
        let mut others = SmallRng::seed_from_u64(seed.rotate_left(8) ^ u64::MAX);
        if climate.blows.cut_power == 0 && others.random_bool(WATCHERS) {
            climate = climate.with_watchers(others.random_range(1..=2));
        }
        let nature = Self {
            rng: Mutex::new(rng),
            climate,
            began: Instant::now(),
            wall_offset_micros: AtomicI64::new(0),
            calm: AtomicBool::new(false),
            outages: Mutex::new([None; 3]),
            under_way: AtomicUsize::new(0),
            losses: AtomicUsize::new(0),
            owners: Owners::default(),
            complaints: Mutex::default(),
            trace: trace.then(Mutex::default),
        };
        nature.note(|| format!("{:?}", nature.climate));
        Arc::new(nature)
    }

    /// The climate of this run.
    pub fn climate(&self) -> &Climate {
        &self.climate
    }

    /// A number of the range.
    pub fn pick(&self, range: std::ops::Range<u64>) -> u64 {
        if range.is_empty() { range.start } else { lock(&self.rng).random_range(range) }
    }

    /// Whether something of this probability happens.
    pub fn happens(&self, probability: f64) -> bool {
        probability > 0.0 && lock(&self.rng).random_bool(probability.min(1.0))
    }

    /// One of these.
    pub fn one_of<'a, T>(&self, of: &'a [T]) -> Option<&'a T> {
        of.get(self.pick(0..of.len() as u64) as usize)
    }

    /// A duration up to `most`, of whole milliseconds, as the runtime's timers are.
    pub fn up_to(&self, most: Duration) -> Duration {
        Duration::from_millis(self.pick(0..most.as_millis() as u64 + 1))
    }

    /// A seed for what has a chance of its own.
    pub fn seed(&self) -> u64 {
        lock(&self.rng).random()
    }

    /// What becomes of a call to a store.
    pub fn fate(&self, place: Place) -> Fate {
        if self.calm.load(Ordering::Relaxed) {
            return Fate::FINE;
        }
        if self.is_away(place) {
            return Fate::away(&mut lock(&self.rng));
        }
        self.climate.fate(place, &mut lock(&self.rng))
    }

    /// How long what a drain says of its progress is on its way to the database.
    pub fn upkeep_delay(&self) -> Duration {
        let is_slow = !self.calm.load(Ordering::Relaxed) && self.happens(self.climate.slow_upkeep);
        if is_slow { self.up_to(SLOW_UPKEEP) } else { Duration::ZERO }
    }

    /// Nothing goes wrong any more.
    pub fn calm_down(&self) {
        self.calm.store(true, Ordering::Relaxed);
        *lock(&self.outages) = [None; 3];
    }

    /// Takes a store away for a while.
    pub fn take_away(&self, place: Place, how_long: Duration) {
        lock(&self.outages)[place as usize] = Some(Instant::now() + how_long);
    }

    /// Whether a store can't be reached.
    pub fn is_away(&self, place: Place) -> bool {
        lock(&self.outages)[place as usize].is_some_and(|until| until > Instant::now())
    }

    /// The time since the run began.
    pub fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Microseconds since the run began.
    pub fn now_micros(&self) -> u64 {
        self.now().as_micros() as u64
    }

    /// What the wall clock shows: microseconds since 1970.
    pub fn wall_micros(&self) -> u64 {
        let now = BEGINNING_MICROS + self.now_micros();
        now.saturating_add_signed(self.wall_offset_micros.load(Ordering::Relaxed))
    }

    /// Steps the wall clock.
    pub fn step_wall_clock(&self, by_micros: i64) {
        self.wall_offset_micros.fetch_add(by_micros, Ordering::Relaxed);
    }

    /// A call that was sent is under way until what is returned is dropped.
    pub fn begin(self: &Arc<Self>) -> Option<UnderWay> {
        // When all is calm, calls come and go for ever.
        (!self.calm.load(Ordering::Relaxed)).then(|| {
            self.under_way.fetch_add(1, Ordering::Relaxed);
            UnderWay(self.clone())
        })
    }

    /// Calls that were sent before all was calm, and have not taken effect.
    pub fn under_way(&self) -> usize {
        self.under_way.load(Ordering::Relaxed)
    }

    /// The hot store has forgotten something.
    pub(crate) fn lost(&self) {
        self.losses.fetch_add(1, Ordering::Relaxed);
    }

    /// How often the hot store has forgotten something.
    pub(crate) fn losses(&self) -> usize {
        self.losses.load(Ordering::Relaxed)
    }

    /// Notes what must not be.
    pub fn complain(&self, what: String) {
        self.note(|| format!("COMPLAINT {what}"));
        lock(&self.complaints).push(what);
    }

    /// What must not be, and was.
    pub fn complaints(&self) -> Vec<String> {
        lock(&self.complaints).clone()
    }

    /// Whether what happens is written down.
    pub fn is_traced(&self) -> bool {
        self.trace.is_some()
    }

    /// Writes down what happens, if anybody wants to know.
    pub fn note(&self, what: impl FnOnce() -> String) {
        if let Some(trace) = &self.trace {
            let line = format!("{:>10} {}", self.now_micros(), what());
            lock(trace).push(line);
        }
    }

    /// All that was written down.
    pub fn trace(&self) -> Vec<String> {
        self.trace.as_ref().map(|trace| lock(trace).clone()).unwrap_or_default()
    }
}

impl fmt::Debug for Nature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Nature")
    }
}

/// See [`Nature::begin`].
#[derive(Debug)]
pub struct UnderWay(Arc<Nature>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// As much of a text as somebody reads.
pub(crate) fn brief(text: &str) -> String {
    const MOST: usize = 400;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
