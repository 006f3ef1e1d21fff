/* What the smoke test runs on all nodes at once. Rank 0 prints one JSON object a line, and says what
 * comes before it begins: whoever has to kill this program knows where it stood.
 *
 * Rank 0 tells the others what to do. They sleep until they hear from it, so that two nodes measure
 * each other while the rest keep quiet. */
#define _POSIX_C_SOURCE 200809L
#include "smoke.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { RARELY = 16 }; /* milliseconds */
enum { ALLREDUCE, BROADCAST, ALL_TO_ALL, RING, CHECKS };

int rank, size;
double limit, patience;
char (*names)[MPI_MAX_PROCESSOR_NAME + 1];
char *block;

void pause_ms(long milliseconds)
{
    struct timespec span = {.tv_sec = milliseconds / 1000, .tv_nsec = milliseconds % 1000 * 1000000};
    nanosleep(&span, NULL);
}

void *memory(size_t bytes)
{
    void *found = calloc(1, bytes);
    if (found == NULL) {
        fprintf(stderr, "no memory for %zu bytes\n", bytes);
        MPI_Abort(MPI_COMM_WORLD, 3);
    }
    return found;
}

/* Whether `request` was done before `deadline` (MPI_Wtime); `asleep` between looks, or spinning. */
int done(MPI_Request *request, double deadline, int asleep)
{
    int finished = 0;
    MPI_Test(request, &finished, MPI_STATUS_IGNORE);
    while (!finished && MPI_Wtime() < deadline) {
        if (asleep)
            pause_ms(1);
        MPI_Test(request, &finished, MPI_STATUS_IGNORE);
    }
    return finished;
}

static void phase(const char *name)
{
    if (rank == 0)
        printf("{\"phase\": \"%s\"}\n", name);
    fflush(stdout);
}

/* Every rank's processor name at rank 0; false, after naming them, when some did not send theirs.
 *
 * Not asleep between looks: up to its first connection Open MPI 4 looks at sockets at every 80000th test alone where it
 * has no clock of the processor, as on 32-bit ARM (opal_progress.c), and would let them wait for minutes. */
static int gather_names(void)
{
    int length = 0, missing = 0;
    char name[MPI_MAX_PROCESSOR_NAME + 1] = {0};
    MPI_Get_processor_name(name, &length);
    if (rank != 0)
        return MPI_Send(name, sizeof name, MPI_CHAR, 0, TAG_NAME, MPI_COMM_WORLD) == MPI_SUCCESS;
    names = memory((size_t)size * sizeof *names);
    MPI_Request *requests = memory((size_t)size * sizeof *requests);
    memcpy(names[0], name, sizeof name);
    for (int from = 1; from < size; from++)
        MPI_Irecv(names[from], sizeof name, MPI_CHAR, from, TAG_NAME, MPI_COMM_WORLD, &requests[from]);
    double deadline = MPI_Wtime() + limit;
    for (int from = 0; from < size; from++) {
        int here = from == 0 || done(&requests[from], deadline, 0);
        missing += !here;
        printf("{\"rank\": %d, \"size\": %d, \"node\": \"%s\"}\n", from, size, here ? names[from] : "");
    }
    free(requests);
    return missing == 0;
}

static long checksum(void)
{
    uint32_t sum = 2166136261u; /* FNV-1a */
    for (int n = 0; n < LARGE; n++)
        sum = (sum ^ (unsigned char)block[n]) * 16777619u;
    return (long)(sum >> 1); /* fits the 32 bits of a small board's long */
}

static void fill(void)
{
    uint32_t value = 12345;
    for (int n = 0; n < LARGE; n++) {
        value = value * 1664525u + 1013904223u;
        block[n] = (char)(value >> 24);
    }
}

static long allreduce(void)
{
    long mine = rank + 1, sum = 0;
    MPI_Allreduce(&mine, &sum, 1, MPI_LONG, MPI_SUM, MPI_COMM_WORLD);
    return sum;
}

static long broadcast(void)
{
    memset(block, 0, LARGE);
    if (rank == 0)
        fill();
    MPI_Bcast(block, LARGE, MPI_BYTE, 0, MPI_COMM_WORLD);
    return checksum();
}

/* How many of the numbers that all others sent are right. */
static long all_to_all(void)
{
    int *out = memory((size_t)size * sizeof *out), *in = memory((size_t)size * sizeof *in);
    for (int to = 0; to < size; to++)
        out[to] = rank * size + to;
    MPI_Alltoall(out, 1, MPI_INT, in, 1, MPI_INT, MPI_COMM_WORLD);
    long right = 0;
    for (int from = 0; from < size; from++)
        right += in[from] == from * size + rank;
    free(out);
    free(in);
    return right;
}

/* A token goes round and everybody adds one: how many had it before us, and at rank 0, in the end. */
static long ring(void)
{
    long token = 0;
    int before = (rank + size - 1) % size, after = (rank + 1) % size;
    if (size == 1)
        return 1;
    if (rank != 0)
        MPI_Recv(&token, 1, MPI_LONG, before, TAG_RING, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    long had = token++;
    MPI_Send(&token, 1, MPI_LONG, after, TAG_RING, MPI_COMM_WORLD);
    if (rank != 0)
        return had;
    MPI_Recv(&token, 1, MPI_LONG, before, TAG_RING, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    return token;
}

static long wanted(int check, int of)
{
    if (check == ALLREDUCE)
        return (long)size * (size + 1) / 2;
    if (check == ALL_TO_ALL)
        return size;
    if (check == RING)
        return of ? of : size;
    fill();
    return checksum();
}

/* What every rank found, and which ranks found something else than they should. */
static void tell(const char *label, int check, const long *found)
{
    int wrong = 0;
    printf("{\"check\": \"%s\", \"expected\": %ld, \"found\": %ld, \"wrong\": [", label,
           wanted(check, 0), found[0]);
    long same = wanted(check, 1);
    for (int from = 0; from < size; from++)
        if (found[from] != (check == RING ? wanted(check, from) : same))
            printf("%s%d", wrong++ ? ", " : "", from);
    printf("]}\n");
    fflush(stdout);
}

static void collectives(void)
{
    static const char *const labels[CHECKS] = {"allreduce", "broadcast", "all-to-all", "ring"};
    static long (*const checks[CHECKS])(void) = {allreduce, broadcast, all_to_all, ring};
    long *found = memory((size_t)size * sizeof *found);
    for (int check = 0; check < CHECKS; check++) {
        phase(labels[check]);
        long mine = checks[check]();
        MPI_Gather(&mine, 1, MPI_LONG, found, 1, MPI_LONG, 0, MPI_COMM_WORLD);
        if (rank == 0)
            tell(labels[check], check, found);
    }
    free(found);
}

/* The longer nothing comes, the rarer it is looked for: where many ranks share few processors, as emulated ones do,
 * those that wait would take the time of the two that measure. */
static void serve(void)
{
    int order[4] = {PING, 0, 0, 0};
    long milliseconds = 1;
    while (order[0] != END) {
        int waiting = 0;
        MPI_Iprobe(0, TAG_ORDER, MPI_COMM_WORLD, &waiting, MPI_STATUS_IGNORE);
        if (!waiting) {
            pause_ms(milliseconds);
            milliseconds = milliseconds < RARELY ? 2 * milliseconds : RARELY;
            continue;
        }
        milliseconds = 1;
        MPI_Recv(order, 4, MPI_INT, 0, TAG_ORDER, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        if (order[0] == COLLECTIVES)
            collectives();
        else if (order[0] != END)
            obey(order);
    }
}

static void tell_all(enum order what)
{
    int order[4] = {what, 0, 0, 0};
    for (int to = 1; to < size; to++)
        MPI_Send(order, 4, MPI_INT, to, TAG_ORDER, MPI_COMM_WORLD);
}

/* False when not all can talk to each other: then some still wait, and only an abort ends them. */
static int lead(void)
{
    int *leaders = memory((size_t)size * sizeof *leaders);
    int nodes = find_leaders(leaders);
    phase("reach");
    int fine = meet(PING, leaders, nodes);
    if (fine) {
        tell_all(COLLECTIVES);
        collectives();
        phase("pairs");
        fine = meet(MEASURE, leaders, nodes);
    }
    free(leaders);
    return fine;
}

int main(int argc, char **argv)
{
    limit = argc > 1 ? atof(argv[1]) : 20;
    patience = argc > 2 ? atof(argv[2]) : limit;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    block = memory(2 * (size_t)LARGE);
    phase("names");
    int fine = gather_names();
    if (rank != 0)
        serve();
    else if (!fine || !lead())
        MPI_Abort(MPI_COMM_WORLD, 2);
    else
        tell_all(END);
    phase("end");
    MPI_Finalize();
    return 0;
}
