//! Threads of the CPU backend. Work is cut by its shape alone, never by the number of threads, so that results do not depend on it.
//!
//! A step of a small network is a hundred pieces of work of some tens of microseconds each, so what counts is how soon all threads are at the next one:
//! the caller works itself, and its workers look for the next piece for a while before they sleep.

use crate::error::{Error, Result};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a thread without work looks for some before it sleeps: longer than the host needs between two pieces of a step.
const PATIENCE: Duration = Duration::from_micros(60);

/// A fixed pool of worker threads.
pub struct Threads {
    pool: Option<Pool>,
    count: usize,
}

impl std::fmt::Debug for Threads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Threads({})", self.count)
    }
}

impl Threads {
    /// A pool of `count` threads, the caller's among them: with one, everything runs there.
    pub fn new(count: usize) -> Result<Threads> {
        let pool = if count > 1 { Some(Pool::new(count - 1).map_err(|e| Error::device(format!("cpu: cannot start {count} threads: {e}")))?) } else { None };
        Ok(Threads { pool, count: count.max(1) })
    }

    /// How many threads there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Run `f(i)` for each `i` in `0..tasks`, in any order, on all threads. `f` decides from `i` alone what it does.
    pub fn each(&self, tasks: usize, f: impl Fn(usize) + Send + Sync) {
        match &self.pool {
            Some(pool) if tasks > 1 => pool.run(tasks, &f),
            _ => (0..tasks).for_each(f),
        }
    }

    /// Cut `out` into runs of `chunk` elements and run `f(start, run)` for each, on all threads.
    pub fn chunks<T: Send>(&self, out: &mut [T], chunk: usize, f: impl Fn(usize, &mut [T]) + Send + Sync) {
        let (chunk, len) = (chunk.max(1), out.len());
        let whole = Shared(out.as_mut_ptr());
        self.each(len.div_ceil(chunk), |i| {
            let start = i * chunk;
            // SAFETY: `out` is borrowed for the whole call, the run lies inside it, and each `i` comes once: no two tasks have an element in common.
            f(start, unsafe { whole.slice(start, chunk.min(len - start)) });
        });
    }

    /// Run `f(i, item)` for each item, in any order, on all threads.
    pub fn each_of<T: Send>(&self, items: Vec<T>, f: impl Fn(usize, T) + Send + Sync) {
        let items: Vec<Mutex<Option<T>>> = items.into_iter().map(|x| Mutex::new(Some(x))).collect();
        self.each(items.len(), |i| {
            if let Some(item) = lock(&items[i]).take() {
                f(i, item);
            }
        });
    }
}

/// The start of a slice that tasks write disjoint parts of.
pub(super) struct Shared<T>(pub *mut T);

impl<T> Shared<T> {
    /// # Safety
    /// The part lies inside a slice that is borrowed mutably for as long as the tasks run, and no other task is given an element of it.
    #[expect(clippy::mut_from_ref, reason = "the caller's promise says who has which part")]
    pub(super) unsafe fn slice(&self, start: usize, len: usize) -> &mut [T] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(start), len) }
    }

    /// # Safety
    /// `offset` lies inside the slice; what is written from there on, no other task reads or writes.
    pub(super) unsafe fn at(&self, offset: usize) -> *mut T {
        // SAFETY: the caller's promise.
        unsafe { self.0.add(offset) }
    }
}

// SAFETY: it is only a pointer; who may do what with it is what `slice` asks its caller to promise. Elements move to other threads, so they must be Send.
unsafe impl<T: Send> Sync for Shared<T> {}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind these locks is whole at every moment.
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The workers, and the caller's side of the work.
struct Pool {
    board: Arc<Board>,
    /// Held by the thread whose work is on the board. Who finds it held (a task that cuts its own work, a second thread) works alone.
    turn: Mutex<()>,
    workers: Vec<JoinHandle<()>>,
}

/// Where a piece of work is announced.
///
/// `ticket` holds the number of the work in its upper half and how many of its tasks nobody has taken in its lower one. A task is taken by counting that
/// down, which succeeds only while that work is on the board: its caller waits until every task taken is done, so what the other fields said before stays true.
struct Board {
    ticket: AtomicU64,
    /// The tasks of the work.
    tasks: AtomicUsize,
    /// A `&dyn Fn(usize)` on the stack of the caller, as a pointer to that reference.
    work: AtomicPtr<&'static (dyn Fn(usize) + Sync)>,
    /// Tasks that are done.
    done: AtomicUsize,
    /// The first panic in a task.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    /// How many workers sleep, and whether the caller does: who changes the ticket or the count of tasks done looks here afterwards, and who goes to sleep
    /// looks there after he said so here, all in one order (SeqCst), so that one of the two sees the other.
    sleepers: AtomicUsize,
    waits: AtomicBool,
    bed: Mutex<()>,
    wake: Condvar,
    finished: Condvar,
    stop: AtomicBool,
}

impl Pool {
    fn new(count: usize) -> std::io::Result<Pool> {
        let board = Arc::new(Board {
            ticket: AtomicU64::new(0),
            tasks: AtomicUsize::new(0),
            work: AtomicPtr::new(std::ptr::null_mut()),
            done: AtomicUsize::new(0),
            panic: Mutex::new(None),
            sleepers: AtomicUsize::new(0),
            waits: AtomicBool::new(false),
            bed: Mutex::new(()),
            wake: Condvar::new(),
            finished: Condvar::new(),
            stop: AtomicBool::new(false),
        });
        let mut pool = Pool { board, turn: Mutex::new(()), workers: Vec::with_capacity(count) };
        for i in 0..count {
            let board = pool.board.clone();
            pool.workers.push(std::thread::Builder::new().name(format!("wgrad-cpu-{i}")).spawn(move || board.serve())?);
        }
        Ok(pool)
    }

    fn run(&self, tasks: usize, f: &(dyn Fn(usize) + Sync)) {
        let turn = match self.turn.try_lock() {
            Ok(turn) => Some(turn),
            // A task of its last holder panicked, after which the board is as good as ever.
            Err(TryLockError::Poisoned(turn)) => Some(turn.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        };
        let (Some(_turn), Ok(count)) = (turn, u32::try_from(tasks)) else {
            return (0..tasks).for_each(f);
        };
        let board = &*self.board;
        // SAFETY: only the lifetime changes. The reference is used by tasks that were taken from this work alone, and this function returns after all are done.
        let f: &'static (dyn Fn(usize) + Sync) = unsafe { std::mem::transmute(f) };
        board.work.store(std::ptr::from_ref(&f).cast_mut(), Ordering::Relaxed);
        board.tasks.store(tasks, Ordering::Relaxed);
        board.done.store(0, Ordering::Relaxed);
        let number = (board.ticket.load(Ordering::Relaxed) >> 32).wrapping_add(1);
        board.ticket.store(number << 32 | u64::from(count), Ordering::SeqCst);
        if board.sleepers.load(Ordering::SeqCst) > 0 {
            let _bed = lock(&board.bed);
            board.wake.notify_all();
        }
        while board.take() {}
        board.wait(tasks);
        if let Some(panic) = lock(&board.panic).take() {
            resume_unwind(panic);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.board.stop.store(true, Ordering::SeqCst);
        let bed = lock(&self.board.bed);
        self.board.wake.notify_all();
        drop(bed);
        for worker in self.workers.drain(..) {
            // A worker catches what its tasks throw.
            let _ = worker.join();
        }
    }
}

impl Board {
    /// Take a task that nobody has, and do it.
    fn take(&self) -> bool {
        let mut ticket = self.ticket.load(Ordering::Acquire);
        loop {
            let left = ticket as u32;
            if left == 0 {
                return false;
            }
            let (tasks, work) = (self.tasks.load(Ordering::Relaxed), self.work.load(Ordering::Relaxed));
            match self.ticket.compare_exchange_weak(ticket, ticket - 1, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    let run = || {
                        // SAFETY: the task was taken, so its work is on the board and its caller waits for it: the reference and what it refers to live.
                        // Both fields are that work's, for they change only when all tasks of the work are done.
                        let f = unsafe { *work };
                        f(tasks - left as usize);
                    };
                    if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
                        lock(&self.panic).get_or_insert(panic);
                    }
                    if self.done.fetch_add(1, Ordering::SeqCst) + 1 == tasks && self.waits.load(Ordering::SeqCst) {
                        let _bed = lock(&self.bed);
                        self.finished.notify_all();
                    }
                    return true;
                }
                Err(now) => ticket = now,
            }
        }
    }

    /// A worker's life.
    fn serve(&self) {
        let has_work = || self.ticket.load(Ordering::SeqCst) as u32 > 0 || self.stop.load(Ordering::SeqCst);
        loop {
            if self.take() {
                continue;
            }
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            if !patiently(has_work) {
                let mut bed = lock(&self.bed);
                self.sleepers.fetch_add(1, Ordering::SeqCst);
                while !has_work() {
                    bed = self.wake.wait(bed).unwrap_or_else(PoisonError::into_inner);
                }
                self.sleepers.fetch_sub(1, Ordering::SeqCst);
            }
        }
    }

    /// Wait until all tasks are done.
    fn wait(&self, tasks: usize) {
        let done = || self.done.load(Ordering::SeqCst) == tasks;
        if patiently(done) {
            return;
        }
        let mut bed = lock(&self.bed);
        self.waits.store(true, Ordering::SeqCst);
        while !done() {
            bed = self.finished.wait(bed).unwrap_or_else(PoisonError::into_inner);
        }
        self.waits.store(false, Ordering::SeqCst);
    }
}

/// Look for a while, and say whether it came true.
fn patiently(ready: impl Fn() -> bool) -> bool {
    let began = Instant::now();
    loop {
        for _ in 0..32 {
            if ready() {
                return true;
            }
            std::hint::spin_loop();
        }
        if began.elapsed() > PATIENCE {
            return false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once_on_any_number_of_threads() {
        for count in [1, 2, 3, 5] {
            let threads = Threads::new(count).unwrap();
            for tasks in [0, 1, 2, 7, 1000] {
                let ran: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                threads.each(tasks, |i| {
                    ran[i].fetch_add(1, Ordering::Relaxed);
                });
                assert!(ran.iter().all(|r| r.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn runs_are_disjoint_and_items_come_once() {
        let threads = Threads::new(3).unwrap();
        for round in 0..2000 {
            let mut out = vec![0usize; 100 + round % 7];
            threads.chunks(&mut out, 9, |start, run| run.iter_mut().enumerate().for_each(|(k, v)| *v += start + k));
            assert!(out.iter().enumerate().all(|(i, v)| i == *v));
        }
        let items: Vec<String> = (0..50).map(|i| i.to_string()).collect();
        threads.each_of(items, |i, item| assert_eq!(item, i.to_string()));
    }

    #[test]
    fn workers_that_sleep_are_woken() {
        let threads = Threads::new(2).unwrap();
        for pause in [0, 30, 60, 61, 90, 500] {
            for _ in 0..20 {
                std::thread::sleep(Duration::from_micros(pause));
                let sum = AtomicUsize::new(0);
                threads.each(4, |i| {
                    std::thread::sleep(Duration::from_micros(pause));
                    sum.fetch_add(i, Ordering::Relaxed);
                });
                assert_eq!(sum.into_inner(), 6);
            }
        }
    }

    #[test]
    fn work_inside_work_and_from_two_threads() {
        let threads = Threads::new(2).unwrap();
        let sum = AtomicUsize::new(0);
        let work = || threads.each(8, |_| threads.each(8, |i| _ = sum.fetch_add(i, Ordering::Relaxed)));
        std::thread::scope(|s| {
            s.spawn(work);
            work();
        });
        assert_eq!(sum.into_inner(), 2 * 8 * 28);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives() {
        let threads = Threads::new(2).unwrap();
        for _ in 0..10 {
            let caught = catch_unwind(AssertUnwindSafe(|| threads.each(6, |i| assert!(i != 3, "task {i}"))));
            assert_eq!(caught.unwrap_err().downcast_ref::<String>().unwrap(), "task 3");
            // The other thread takes a task, too: each waits for the other.
            let both = std::sync::Barrier::new(2);
            threads.each(2, |_| _ = both.wait());
        }
    }
}
