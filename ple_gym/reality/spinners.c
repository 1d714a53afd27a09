/* Threads that spin on a lock on a real kernel, for `ple-gym reality` (Linux on x86-64; docs/reality.md).
 *
 *   spinners costs CPU...
 *   spinners run THREADS GROUPS WINDOW HOLD THINK ticket|tas yield|spin WARM_UP MICROSECONDS SEED CPU...
 *
 * `costs` measures what the machine's own work takes, `run` lets threads think, take a lock and hold it: at first for
 * WARM_UP microseconds, of which nothing is counted. Other times are TSC cycles. What was measured goes to stdout, a line `KIND NAME=VALUE ...` each; what went wrong goes to stderr, and the
 * exit code is 1.
 *
 * A run has a process per group, in a session of its own, so that autogroups put each into a control group. Groups
 * share no lock. No process outlives the one that started it, and none lives longer than its time and PATIENCE.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#if !defined(__linux__) || !defined(__x86_64__)
#error "this is for Linux on x86-64"
#endif

enum {
    MAX_THREADS = 64,
    MAX_GROUPS = 2,
    MAX_CPUS = 64,
    BINS = 64,        /* of waits, one per power of two */
    GAP = 2000,       /* cycles between two looks at the clock after which somebody else had the CPU */
    PATIENCE = 10,    /* seconds that a process may take longer than it was told */
    SAMPLES = 20000,  /* of each cost */
    ENOUGH = 100,     /* of a cost that other load may hide */
    BATCH = 20,       /* transfers, or rounds, in a sample */
    OWN = 1000,       /* cycles of thinking and of holding in rounds whose own work is measured */
    WATCHED = 2,      /* seconds in which what takes the CPUs is counted */
    LINE = 128        /* bytes: two cache lines, as the prefetcher fetches pairs */
};

struct lock {
    _Alignas(LINE) atomic_uint next; /* ticket: the next one to be drawn */
    atomic_uint owner;               /* ticket: whose turn it is; test-and-set: whether it is taken */
};

enum phase { WARMING_UP, MEASURED, OVER };

struct counters {
    _Alignas(LINE) enum phase seen; /* by this thread */
    uint64_t acquisitions, contended, windows, voluntary, involuntary, cpu_us;
    uint64_t waits[BINS];
};

static struct shared {
    struct lock lock[MAX_GROUPS];
    struct counters counters[MAX_THREADS];
    char name[MAX_GROUPS][64]; /* of each group's autogroup */
    sem_t go;
    atomic_int ready;
    _Alignas(LINE) atomic_int phase;
} *shared;

static struct {
    int threads, groups;
    uint64_t window, hold, think, warm_up, microseconds, seed;
    bool ticket, yields;
} world;

static int cpus[MAX_CPUS], cpu_count;

static _Noreturn void fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    _exit(1);
}

static void pin(const int *chosen, int count)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    for (int i = 0; i < count; i++)
        CPU_SET(chosen[i], &set);
    if (sched_setaffinity(0, sizeof set, &set))
        fail("sched_setaffinity");
}

static pthread_t start(void *(*work)(void *), void *argument)
{
    pthread_t thread;
    if ((errno = pthread_create(&thread, NULL, work, argument)))
        fail("pthread_create");
    return thread;
}

/* ---------------------------------------------------------------------------------------------------------- the run */

/* Compute for some cycles of this thread's own: time in which somebody else had the CPU does not count. */
static void spend(uint64_t cycles)
{
    uint64_t last = __rdtsc(), spent = 0;
    while (spent < cycles) {
        uint64_t now = __rdtsc();
        spent += now - last > GAP ? 0 : now - last;
        last = now;
    }
}

static bool take(struct lock *lock, unsigned ticket)
{
    unsigned is_free = 0;
    if (world.ticket)
        return atomic_load(&lock->owner) == ticket;
    return atomic_load(&lock->owner) == 0 && atomic_compare_exchange_strong(&lock->owner, &is_free, 1);
}

static void add_usage(struct counters *mine, int sign)
{
    struct rusage usage;
    getrusage(RUSAGE_THREAD, &usage);
    mine->voluntary += sign * usage.ru_nvcsw;
    mine->involuntary += sign * usage.ru_nivcsw;
    mine->cpu_us += sign * ((usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000
                            + usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

/* Whether the run goes on; when it begins to be measured, this thread counts anew. */
static bool goes_on(struct counters *mine)
{
    enum phase phase = (enum phase)atomic_load_explicit(&shared->phase, memory_order_relaxed);
    if (phase == MEASURED && mine->seen != MEASURED) {
        *mine = (struct counters){.seen = MEASURED};
        add_usage(mine, -1);
    }
    return phase != OVER;
}

/* Spin until the lock is ours; false if the run ends before. As a processor does at a VM entry, a window starts anew
 * when somebody else has had the CPU. */
static bool wait_for(struct lock *lock, unsigned ticket, struct counters *mine)
{
    uint64_t last = __rdtsc(), began = last;
    while (!take(lock, ticket)) {
        _mm_pause();
        uint64_t now = __rdtsc();
        if (now - last > GAP)
            began = now;
        if ((now - began > world.window || now - last > GAP) && !goes_on(mine))
            return false;
        if (now - began > world.window) {
            mine->windows++;
            if (world.yields)
                sched_yield();
            began = now = __rdtsc();
        }
        last = now;
    }
    return true;
}

/* One round: think, take the lock, hold it. False if the run ends before. */
static bool work(struct lock *lock, struct counters *mine, uint64_t *random)
{
    *random = *random * 6364136223846793005u + 1442695040888963407u;
    spend(world.think / 2 + (*random >> 32) * (world.think + 1) / (UINT64_C(1) << 32));
    unsigned ticket = world.ticket ? atomic_fetch_add(&lock->next, 1) : 0;
    if (!take(lock, ticket)) {
        uint64_t tried = __rdtsc();
        if (!wait_for(lock, ticket, mine))
            return false;
        mine->contended++;
        mine->waits[63 - __builtin_clzll((__rdtsc() - tried) | 1)]++;
    }
    spend(world.hold);
    atomic_store(&lock->owner, world.ticket ? ticket + 1 : 0);
    mine->acquisitions++;
    return goes_on(mine);
}

static void *spinner(void *argument)
{
    int index = (int)(intptr_t)argument;
    struct counters *mine = &shared->counters[index];
    struct lock *lock = &shared->lock[index * world.groups / world.threads];
    uint64_t random = (world.seed * MAX_THREADS + index + 1) * 0x9E3779B97F4A7C15u;
    char name[16]; /* by which a trace knows whose thread it is */

    snprintf(name, sizeof name, "spin-%" PRIu64 "-%d", world.seed, index);
    prctl(PR_SET_NAME, name);
    pin(&cpus[index % cpu_count], 1);
    atomic_fetch_add(&shared->ready, 1);
    while (sem_wait(&shared->go))
        ;
    /* If all CPUs have as many threads these stay: a little other work would make Linux move one for a tenth of a second. */
    if (world.threads % cpu_count)
        pin(cpus, cpu_count);
    while (work(lock, mine, &random))
        ;
    if (mine->seen == MEASURED)
        add_usage(mine, +1);
    else
        *mine = (struct counters){0};
    return NULL;
}

static void read_autogroup(char *name, size_t size)
{
    FILE *file = fopen("/proc/self/autogroup", "r");
    if (!file || fscanf(file, "%63s", name) != 1)
        snprintf(name, size, "none");
    if (file)
        fclose(file);
}

static _Noreturn void run_group(int group, pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    if (setsid() < 0)
        fail("setsid");
    alarm((unsigned)((world.warm_up + world.microseconds) / 1000000) + PATIENCE);
    read_autogroup(shared->name[group], sizeof shared->name[group]);
    pthread_t threads[MAX_THREADS];
    int count = 0;
    for (int i = 0; i < world.threads; i++)
        if (i * world.groups / world.threads == group)
            threads[count++] = start(spinner, (void *)(intptr_t)i);
    for (int i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
    _exit(0);
}

/* Milliseconds for which a hypervisor has kept our CPUs from running. */
static uint64_t steal_ms(void)
{
    FILE *file = fopen("/proc/stat", "r");
    char line[512];
    uint64_t ticks = 0, steal;
    int cpu;
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "cpu%d %*u %*u %*u %*u %*u %*u %*u %" SCNu64, &cpu, &steal) == 2)
            for (int i = 0; i < cpu_count; i++)
                ticks += cpus[i] == cpu ? steal : 0;
    if (file)
        fclose(file);
    return ticks * 1000 / (uint64_t)sysconf(_SC_CLK_TCK);
}

static void nap(uint64_t microseconds)
{
    struct timespec left = {(time_t)(microseconds / 1000000), (long)(microseconds % 1000000) * 1000};
    while (nanosleep(&left, &left))
        ;
}

static void check_groups(void)
{
    int status;
    if (waitpid(-1, &status, WNOHANG) != 0) {
        fprintf(stderr, "a group ended before its time\n");
        exit(1);
    }
}

static void run(void)
{
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        fail("mmap");
    alarm((unsigned)((world.warm_up + world.microseconds) / 1000000) + PATIENCE);
    if (sem_init(&shared->go, 1, 0))
        fail("sem_init");
    pid_t parent = getpid();
    for (int group = 0; group < world.groups; group++) {
        pid_t child = fork();
        if (child < 0)
            fail("fork");
        if (child == 0)
            run_group(group, parent);
    }
    while (atomic_load(&shared->ready) < world.threads) {
        check_groups();
        nap(200);
    }
    nap(2000); /* until the last one sleeps */
    uint64_t began = __rdtsc();
    for (int i = 0; i < world.threads; i++)
        sem_post(&shared->go);
    nap(world.warm_up);
    uint64_t steal = steal_ms(), measured = __rdtsc();
    atomic_store(&shared->phase, MEASURED);
    nap(world.microseconds);
    atomic_store(&shared->phase, OVER);
    uint64_t over = __rdtsc();
    steal = steal_ms() - steal;
    for (int group = 0; group < world.groups; group++) {
        int status;
        if (wait(&status) < 0 || status != 0) {
            fprintf(stderr, "a group failed\n");
            exit(1);
        }
    }

    struct counters all = {0};
    for (int i = 0; i < world.threads; i++) {
        struct counters *one = &shared->counters[i];
        all.acquisitions += one->acquisitions;
        all.contended += one->contended;
        all.windows += one->windows;
        all.voluntary += one->voluntary;
        all.involuntary += one->involuntary;
        all.cpu_us += one->cpu_us;
        for (int bin = 0; bin < BINS; bin++)
            all.waits[bin] += one->waits[bin];
    }
    printf("result warm_up=%" PRIu64 " cycles=%" PRIu64 " acquisitions=%" PRIu64 " contended=%" PRIu64 " windows=%" PRIu64
           " voluntary=%" PRIu64 " involuntary=%" PRIu64 " cpu_us=%" PRIu64 " steal_ms=%" PRIu64 " waits=",
           measured - began, over - measured, all.acquisitions, all.contended, all.windows, all.voluntary, all.involuntary, all.cpu_us, steal);
    for (int bin = 0; bin < BINS; bin++)
        printf("%s%" PRIu64, bin ? "," : "", all.waits[bin]);
    printf(" groups=");
    for (int group = 0; group < world.groups; group++)
        printf("%s%s", group ? "," : "", shared->name[group]);
    printf("\n");
}

/* ------------------------------------------------------------------------------------------------------------ costs */

struct samples {
    uint64_t value[SAMPLES];
    int count;
};

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* The middle one: whatever else runs on the machine disturbs fewer than half of them. */
static uint64_t median(struct samples *of, const char *what)
{
    if (of->count < ENOUGH) {
        fprintf(stderr, "%s: only %d of %d samples in time\n", what, of->count, SAMPLES);
        exit(1);
    }
    qsort(of->value, of->count, sizeof of->value[0], compare);
    return of->value[of->count / 2];
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_RAW, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* The clock is read between two looks at the TSC; the narrowest such pair of many is the truest. */
static double instant(uint64_t *tsc)
{
    uint64_t narrowest = UINT64_MAX;
    double at = 0;
    for (int i = 0; i < 1000; i++) {
        uint64_t before = __rdtsc();
        double now = seconds();
        uint64_t after = __rdtsc();
        if (after - before < narrowest) {
            narrowest = after - before;
            *tsc = before + narrowest / 2;
            at = now;
        }
    }
    return at;
}

static uint64_t tsc_hz(void)
{
    uint64_t first, last;
    double from = instant(&first);
    nap(200000);
    double to = instant(&last);
    return (uint64_t)((double)(last - first) / (to - from) + 0.5);
}

static struct samples samples[2];
static atomic_uint never, turn;
static _Atomic uint64_t left_at; /* when a thread last called sched_yield, and in bit 0 which of the two */
static atomic_int rounds;

/* From PAUSE to PAUSE of a waiter. */
static uint64_t pause_cycles(void)
{
    uint64_t last = __rdtsc();
    for (int i = 0; i < SAMPLES; i++) {
        if (atomic_load(&never))
            return 0;
        _mm_pause();
        uint64_t now = __rdtsc();
        samples[0].value[i] = now - last;
        last = now;
    }
    samples[0].count = SAMPLES;
    return median(&samples[0], "pause");
}

static uint64_t yield_cycles(void)
{
    for (int i = 0; i < SAMPLES; i++) {
        uint64_t before = __rdtsc();
        sched_yield();
        samples[0].value[i] = __rdtsc() - before;
    }
    samples[0].count = SAMPLES;
    return median(&samples[0], "yield");
}

/* Two threads of one CPU yield to each other: from the one's call to the other's return. */
static void *yielder(void *argument)
{
    uint64_t me = (uint64_t)(intptr_t)argument;
    struct samples *mine = &samples[me];
    mine->count = 0;
    pin(cpus, 1);
    double end = seconds() + 2;
    while (atomic_load(&rounds) < SAMPLES && seconds() < end) {
        atomic_store(&left_at, (__rdtsc() & ~UINT64_C(1)) | me);
        sched_yield();
        uint64_t now = __rdtsc(), left = atomic_load(&left_at);
        if ((left & 1) != me) {
            mine->value[mine->count++] = now - left;
            atomic_fetch_add(&rounds, 1);
        }
    }
    return NULL;
}

/* Two threads on two CPUs hand a line to and fro, each waiting as for a lock. A sample is the mean of many transfers: of
 * a single one the processor may read the clock too early. */
static void *hander(void *argument)
{
    unsigned me = (unsigned)(intptr_t)argument;
    pin(&cpus[me], 1);
    double end = seconds() + 2;
    samples[me].count = 0;
    for (int i = 0; i < SAMPLES / BATCH; i++) {
        uint64_t before = __rdtsc();
        for (int j = 0; j < BATCH; j++) {
            uint64_t last = __rdtsc();
            while ((atomic_load(&turn) & 1) != me) {
                _mm_pause();
                uint64_t now = __rdtsc();
                if (now - last > GAP && seconds() > end)
                    return NULL;
                last = now;
            }
            atomic_fetch_add(&turn, 1);
        }
        samples[me].value[samples[me].count++] = (__rdtsc() - before) / (2 * BATCH);
    }
    return NULL;
}

static void both(void *(*part)(void *))
{
    pthread_t other = start(part, (void *)1), one = start(part, (void *)0);
    pthread_join(one, NULL);
    pthread_join(other, NULL);
}

/* What a round takes beside thinking and holding, if nobody else wants the lock. */
static uint64_t own_cycles(void)
{
    static struct shared alone;
    uint64_t random = 1;
    shared = &alone;
    world.think = world.hold = OWN;
    world.ticket = true;
    samples[0].count = 0;
    for (int i = 0; i < SAMPLES / BATCH; i++) {
        uint64_t before = __rdtsc();
        for (int j = 0; j < BATCH; j++)
            work(&shared->lock[0], &shared->counters[0], &random);
        uint64_t took = (__rdtsc() - before) / BATCH;
        samples[0].value[samples[0].count++] = took > 2 * OWN ? took - 2 * OWN : 0;
    }
    return median(&samples[0], "own work");
}

/* What takes a CPU away for a moment: other tasks, or what no task does (interrupts, a hypervisor beneath). */
struct taken {
    uint64_t count, cycles;
};

static struct watched {
    _Alignas(LINE) uint64_t began, over;
    struct taken others, lost;
} watched[MAX_CPUS];

static uint64_t preempted(void)
{
    struct rusage usage;
    getrusage(RUSAGE_THREAD, &usage);
    return (uint64_t)usage.ru_nivcsw;
}

/* A thread that never waits counts how often its CPU is taken, and for how long. */
static void *watcher(void *argument)
{
    int index = (int)(intptr_t)argument;
    struct watched *mine = &watched[index];
    pin(&cpus[index], 1);
    uint64_t seen = preempted(), last = __rdtsc();
    mine->began = last;
    for (double end = seconds() + WATCHED; seconds() < end;)
        for (int i = 0; i < 1000; i++) {
            uint64_t now = __rdtsc(), gap = now - last;
            if (gap > GAP) {
                uint64_t times = preempted();
                struct taken *by = times > seen ? &mine->others : &mine->lost;
                by->cycles += gap;
                by->count += times > seen ? times - seen : 1;
                seen = times;
                now = __rdtsc();
            }
            last = now;
        }
    mine->over = last;
    return NULL;
}

static void add(struct taken *all, struct taken one)
{
    all->count += one.count;
    all->cycles += one.cycles;
}

static void watch(struct watched *all)
{
    pthread_t threads[MAX_CPUS];
    for (int i = 0; i < cpu_count; i++)
        threads[i] = start(watcher, (void *)(intptr_t)i);
    for (int i = 0; i < cpu_count; i++) {
        pthread_join(threads[i], NULL);
        all->over += watched[i].over - watched[i].began;
        add(&all->others, watched[i].others);
        add(&all->lost, watched[i].lost);
    }
}

static uint64_t mean(uint64_t sum, uint64_t count)
{
    return count ? sum / count : 0;
}

static void costs(void)
{
    alarm(PATIENCE);
    if (setsid() < 0 && errno != EPERM) /* the leader of a session has an autogroup already */
        fail("setsid");
    pin(cpus, 1);
    uint64_t hz = tsc_hz(), pause = pause_cycles(), yield = yield_cycles(), line = 0;
    both(yielder);
    uint64_t yield_switch = median(&samples[0], "switch");
    if (cpu_count > 1) {
        both(hander);
        line = median(&samples[0], "line");
    }
    uint64_t own = own_cycles();
    struct watched all = {0};
    watch(&all);
    printf("costs tsc_hz=%" PRIu64 " pause=%" PRIu64 " yield=%" PRIu64 " yield_switch=%" PRIu64 " line=%" PRIu64
           " own=%" PRIu64 " others_every=%" PRIu64 " others_take=%" PRIu64 " lost_every=%" PRIu64 " lost_take=%" PRIu64
           "\n",
           hz, pause, yield, yield_switch, line, own, mean(all.over, all.others.count),
           mean(all.others.cycles, all.others.count), mean(all.over, all.lost.count),
           mean(all.lost.cycles, all.lost.count));
}

/* ------------------------------------------------------------------------------------------------------------- main */

static _Noreturn void misused(void)
{
    fprintf(stderr, "usage: spinners costs CPU... | spinners run THREADS GROUPS WINDOW HOLD THINK ticket|tas yield|spin "
                    "WARM_UP MICROSECONDS SEED CPU...\n");
    exit(1);
}

static uint64_t number(const char *text, uint64_t low, uint64_t high)
{
    char *end;
    errno = 0;
    uint64_t value = strtoull(text, &end, 10);
    if (errno || *end || *text < '0' || *text > '9' || value < low || value > high)
        misused();
    return value;
}

static bool either(const char *text, const char *yes, const char *no)
{
    if (strcmp(text, yes) && strcmp(text, no))
        misused();
    return !strcmp(text, yes);
}

static void read_cpus(int count, char **texts)
{
    if (count < 1 || count > MAX_CPUS)
        misused();
    for (int i = 0; i < count; i++)
        cpus[cpu_count++] = (int)number(texts[i], 0, CPU_SETSIZE - 1);
}

int main(int argc, char **argv)
{
    if (argc < 3)
        misused();
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (!either(argv[1], "run", "costs")) {
        read_cpus(argc - 2, argv + 2);
        costs();
    } else {
        if (argc < 13)
            misused();
        world.threads = (int)number(argv[2], 1, MAX_THREADS);
        world.groups = (int)number(argv[3], 1, MAX_GROUPS);
        world.window = number(argv[4], 1, 1000000000);
        world.hold = number(argv[5], 1, 1000000000);
        world.think = number(argv[6], 1, 1000000000);
        world.ticket = either(argv[7], "ticket", "tas");
        world.yields = either(argv[8], "yield", "spin");
        world.warm_up = number(argv[9], 0, 60000000);
        world.microseconds = number(argv[10], 1, 60000000);
        world.seed = number(argv[11], 0, UINT32_MAX);
        read_cpus(argc - 12, argv + 12);
        run();
    }
    return fflush(stdout) || ferror(stdout);
}
