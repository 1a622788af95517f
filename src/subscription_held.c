/*
 * subscription_held.c
 *		Fetching ahead: lanes of which the consumer still has messages.
 *
 * A fetch begins at a lane's cursor, so it hands out again what the consumer is
 * at work on.  One that wants more meanwhile says what it has: lane, epoch, and
 * the highest position that it was handed.  Its word is taken, for the note in
 * shared memory (subscription_member.c) says what was handed out, and not what
 * arrived; but where it claims more than was handed out, it is wrong.
 *
 * Nothing of a held lane may be passed: its cursor stays where the consumer put
 * it.  Nor is a parked message handed out, for the consumer may have sent an
 * acknowledgement of a later position that it would be taken for.  Instead, when
 * one is due, the lane gives nothing more until the consumer holds nothing of it.
 * So it is when there is no note: where to go on is not known then.
 */
#include "subscription.h"

#include "catalog/pg_type.h"
#include "utils/array.h"

/* The elements of an array argument without nulls, or an error. */
static void *
argument_array(FunctionCallInfo fcinfo, int arg, Oid type, int *n)
{
	ArrayType  *array = PG_GETARG_ARRAYTYPE_P(arg);

	if (ARR_NDIM(array) > 1 || array_contains_nulls(array) || ARR_ELEMTYPE(array) != type)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("held lanes, epochs and positions must be one-dimensional arrays without nulls")));
	*n = ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array));
	return ARR_DATA_PTR(array);
}

/* Three arguments from "arg" on: lanes, epochs, positions; all or none are null. */
EsHeld
EsArgHeld(FunctionCallInfo fcinfo, int arg)
{
	EsHeld		held = {0};
	int			nepochs;
	int			npositions;

	if (PG_ARGISNULL(arg) && PG_ARGISNULL(arg + 1) && PG_ARGISNULL(arg + 2))
		return held;
	if (PG_ARGISNULL(arg) || PG_ARGISNULL(arg + 1) || PG_ARGISNULL(arg + 2))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("held lanes, epochs and positions must be given together")));
	held.lanes = argument_array(fcinfo, arg, INT4OID, &held.n);
	held.epochs = argument_array(fcinfo, arg + 1, INT8OID, &nepochs);
	held.positions = argument_array(fcinfo, arg + 2, INT8OID, &npositions);
	if (held.n != nepochs || held.n != npositions)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("held lanes, epochs and positions must be arrays of the same length"),
				 errdetail("There are %d lanes, %d epochs and %d positions.", held.n, nepochs, npositions)));
	return held;
}

/* What the consumer has of a lane; 0 where it has nothing of it. */
static EsPosition
held_position(const EsHeld *held, const EsLane *lane)
{
	for (int i = 0; i < held->n; i++)
	{
		if (held->lanes[i] == lane->number && held->epochs[i] == lane->epoch)
			return (EsPosition) Max(held->positions[i], 0);
	}
	return 0;
}

/*
 * Begin a lane behind what the consumer has of it.  "note" is what the lane was
 * handed, NULL where that is not known.
 */
void
EsLaneHold(EsLane *lane, const EsHeld *held, const EsLaneNote *note, EsPosition upto)
{
	EsPosition	position = held_position(held, lane);

	if (position == 0)
		return;
	lane->held = true;
	if (note == NULL)
	{
		EsLaneExhaust(lane, upto);
		return;
	}
	if (position > Max(note->handed, lane->cursor))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("position " UINT64_FORMAT " of lane %d was not handed out", position, lane->number),
				 errdetail("The lane was handed out up to position " UINT64_FORMAT ".", note->handed)));
	lane->slow = false;
	lane->from = Max(lane->cursor, position >= note->handed ? note->looked : position);
}

/* Nothing of a held lane is handed out in this fetch, nor is anything noted of it. */
void
EsLaneExhaust(EsLane *lane, EsPosition upto)
{
	lane->exhausted = true;
	lane->slow = false;
	lane->from = upto;
}
