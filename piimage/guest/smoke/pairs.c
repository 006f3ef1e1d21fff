/* Two nodes at a time: do they hear each other, and how fast? Nobody waits longer than the limit for a
 * first answer, and than the patience for the messages of one measurement. */
#include "smoke.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Up to this many nodes, pairs are measured one at a time; beyond, disjoint pairs together. */
enum { QUIET_NODES = 16 };
enum { WARM_UP = 10, SMALL_TRIPS = 100, LARGE_TRIPS = 4 };
/* MPI promises tags up to 32767 only. */
enum { TAGS = 32000 };

struct pair {
    int first, second, tag;
};

/* One message there and one back, or the other way round; false when one of them did not come. */
static int trip(int peer, int first, int bytes, int tag, double deadline)
{
    MPI_Request out, in;
    MPI_Irecv(block, bytes, MPI_BYTE, peer, tag, MPI_COMM_WORLD, &in);
    if (!first && !done(&in, deadline, 0))
        return 0;
    MPI_Isend(block + LARGE, bytes, MPI_BYTE, peer, tag, MPI_COMM_WORLD, &out);
    if (!done(&out, deadline, 0))
        return 0;
    return !first || done(&in, deadline, 0);
}

static int trips(int peer, int first, int bytes, int count, int tag, double seconds)
{
    double deadline = MPI_Wtime() + seconds;
    for (int n = 0; n < count; n++)
        if (!trip(peer, first, bytes, tag, deadline))
            return 0;
    return 1;
}

/* Half a round trip of 8 bytes in microseconds, and MiB/s of 1 MiB; zero when there is no answer. */
static void measure(int peer, int first, int tag, double result[2])
{
    result[0] = result[1] = 0;
    if (!trips(peer, first, SMALL, WARM_UP, tag, patience))
        return;
    double start = MPI_Wtime();
    if (!trips(peer, first, SMALL, SMALL_TRIPS, tag, patience))
        return;
    double small = (MPI_Wtime() - start) / (2 * SMALL_TRIPS);
    if (!trips(peer, first, LARGE, 1, tag, patience))
        return;
    start = MPI_Wtime();
    if (!trips(peer, first, LARGE, LARGE_TRIPS, tag, patience))
        return;
    result[0] = small * 1e6;
    result[1] = 2 * LARGE_TRIPS / (MPI_Wtime() - start);
}

/* The part of this rank in what two do; who sends first tells rank 0 what came of it. */
void obey(const int order[4])
{
    double result[2] = {0, 0};
    if (order[0] == PING)
        result[0] = trips(order[1], order[2], SMALL, 1, order[3], limit);
    else
        measure(order[1], order[2], order[3], result);
    if (order[2] && rank != 0)
        MPI_Send(result, 2, MPI_DOUBLE, 0, TAG_RESULT, MPI_COMM_WORLD);
}

static void begin(enum order what, struct pair pair)
{
    int waits[4] = {what, pair.first, 0, pair.tag}, sends[4] = {what, pair.second, 1, pair.tag};
    MPI_Send(waits, 4, MPI_INT, pair.second, TAG_ORDER, MPI_COMM_WORLD);
    if (pair.first != 0)
        MPI_Send(sends, 4, MPI_INT, pair.first, TAG_ORDER, MPI_COMM_WORLD);
}

/* What the first of the pair found; rank 0, always a first one, takes its own part here. */
static void finish(enum order what, struct pair pair, double result[2])
{
    result[0] = result[1] = 0;
    if (pair.first == 0 && what == PING) {
        result[0] = trips(pair.second, 1, SMALL, 1, pair.tag, limit);
        return;
    }
    if (pair.first == 0) {
        measure(pair.second, 1, pair.tag, result);
        return;
    }
    MPI_Request request;
    MPI_Irecv(result, 2, MPI_DOUBLE, pair.first, TAG_RESULT, MPI_COMM_WORLD, &request);
    if (!done(&request, MPI_Wtime() + 4 * (what == MEASURE ? patience : limit) + 5, 1))
        result[0] = result[1] = 0;
}

static void show(enum order what, struct pair pair, const double result[2])
{
    const char *first = names[pair.first], *second = names[pair.second];
    if (result[0] <= 0)
        printf("{\"silent\": [\"%s\", \"%s\"]}\n", first, second);
    else if (what == MEASURE)
        printf("{\"from\": \"%s\", \"to\": \"%s\", \"latency_us\": %.2f, \"bandwidth_mib_s\": %.2f}\n",
               first, second, result[0], result[1]);
    fflush(stdout);
}

/* Round `round` of a tournament in which everybody meets everybody else once (the circle method). */
static int pairs_of(int round, const int *leaders, int nodes, struct pair *pairs)
{
    static int tag = 0;
    int seats = nodes + nodes % 2, count = 0;
    for (int k = 0; k < seats / 2; k++) {
        int a = k == 0 ? seats - 1 : (round + k) % (seats - 1);
        int b = (round + seats - 1 - k) % (seats - 1);
        if (a >= nodes || b >= nodes)
            continue; /* who meets the empty seat rests */
        tag = (tag + 1) % TAGS;
        pairs[count++] = (struct pair){leaders[a < b ? a : b], leaders[a < b ? b : a], TAG_PAIR + tag};
    }
    return count;
}

static int play(enum order what, const struct pair *pairs, int count)
{
    double result[2];
    int fine = 1;
    for (int k = 0; k < count; k++)
        begin(what, pairs[k]);
    for (int own = 1; own >= 0; own--) /* rank 0's own pair first: its partner is waiting */
        for (int k = 0; k < count; k++)
            if ((pairs[k].first == 0) == own) {
                finish(what, pairs[k], result);
                show(what, pairs[k], result);
                fine &= result[0] > 0;
            }
    return fine;
}

/* `what` between all nodes, each pair once; false when there was a pair without an answer. */
int meet(enum order what, const int *leaders, int nodes)
{
    int fine = 1;
    struct pair *pairs = memory((size_t)(nodes + 1) * sizeof *pairs);
    for (int round = 0; round < nodes - 1 + nodes % 2; round++) {
        int count = pairs_of(round, leaders, nodes, pairs);
        int together = what == MEASURE && nodes > QUIET_NODES ? count : 1;
        for (int start = 0; start < count; start += together)
            fine &= play(what, pairs + start, together);
    }
    free(pairs);
    return fine;
}

/* The lowest rank of every node, in rank order; the number of nodes. */
int find_leaders(int *leaders)
{
    int count = 0;
    for (int n = 0; n < size; n++) {
        int known = 0;
        for (int k = 0; k < count && !known; k++)
            known = strcmp(names[leaders[k]], names[n]) == 0;
        if (!known)
            leaders[count++] = n;
    }
    return count;
}
