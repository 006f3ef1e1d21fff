/* Shared by the two halves of the smoke test's MPI program: the whole job, and two nodes at a time. */
#ifndef SMOKE_H
#define SMOKE_H

#include <mpi.h>
#include <stddef.h>

enum { TAG_NAME = 1, TAG_ORDER, TAG_RESULT, TAG_RING, TAG_PAIR };
/* What rank 0 tells the others to do. An order is {what, peer, whether to send first, tag}. */
enum order { PING, MEASURE, COLLECTIVES, END };
enum { SMALL = 8, LARGE = 1 << 20 };

extern int rank, size;
extern double limit, patience; /* seconds that a message may take, and those of one measurement */
extern char (*names)[MPI_MAX_PROCESSOR_NAME + 1]; /* of every rank, at rank 0 */
extern char *block; /* 2 * LARGE bytes: what comes in, what goes out */

void *memory(size_t bytes);
void pause_ms(long milliseconds);
int done(MPI_Request *request, double deadline, int asleep);

int find_leaders(int *leaders);
int meet(enum order what, const int *leaders, int nodes);
void obey(const int order[4]);

#endif
