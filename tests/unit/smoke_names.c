/* Linked into the smoke test's MPI program for its own test: one machine plays several nodes, and things
 * go wrong on demand. MPI's functions are weak symbols for exactly that (the profiling interface). */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int want(const char *name, int rank)
{
    const char *text = getenv(name);
    return text != NULL && atoi(text) == rank;
}

static int my_rank(void)
{
    int rank;
    PMPI_Comm_rank(MPI_COMM_WORLD, &rank);
    return rank;
}

/* Two ranks to a node. */
int MPI_Get_processor_name(char *name, int *length)
{
    *length = sprintf(name, "node%d", my_rank() / 2);
    return MPI_SUCCESS;
}

/* The rank in WRONG_RANK adds up wrongly. */
int MPI_Allreduce(const void *in, void *out, int count, MPI_Datatype type, MPI_Op op, MPI_Comm comm)
{
    int result = PMPI_Allreduce(in, out, count, type, op, comm);
    if (want("WRONG_RANK", my_rank()))
        *(long *)out += 1;
    return result;
}

/* The rank in DAMAGED_RANK gets one byte of a broadcast wrong. */
int MPI_Bcast(void *data, int count, MPI_Datatype type, int root, MPI_Comm comm)
{
    int result = PMPI_Bcast(data, count, type, root, comm);
    if (want("DAMAGED_RANK", my_rank()))
        ((char *)data)[count / 2] ^= 1;
    return result;
}

/* The ranks in DEAF_ONE and DEAF_OTHER do not hear each other: what they send ends with themselves. */
int MPI_Isend(const void *data, int count, MPI_Datatype type, int to, int tag, MPI_Comm comm, MPI_Request *request)
{
    int me = my_rank();
    if ((want("DEAF_ONE", me) && want("DEAF_OTHER", to)) || (want("DEAF_ONE", to) && want("DEAF_OTHER", me)))
        to = me;
    return PMPI_Isend(data, count, type, to, tag, comm, request);
}

/* The rank in MUTE_RANK never says its name. */
int MPI_Send(const void *data, int count, MPI_Datatype type, int to, int tag, MPI_Comm comm)
{
    if (tag == 1 && want("MUTE_RANK", my_rank()))
        return MPI_SUCCESS;
    return PMPI_Send(data, count, type, to, tag, comm);
}
