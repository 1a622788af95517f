/*
 * columns.c
 *		Arguments of a call become the columns of a batch of rows.
 *
 * Everything is checked here, before anything is locked or drawn: so a refused
 * call has cost nobody else anything.  A column borrows the arguments' memory.
 */
#include "columns.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "stream.h"

/* Everybody's value. */
void
EsColumnSet(EsColumn *column, Datum value)
{
	Datum	   *copy = palloc(sizeof(Datum));

	*copy = value;
	*column = (EsColumn) {copy, NULL, true};
}

void
EsColumnSetText(EsColumn *column, const text *value)
{
	if (value != NULL)
		EsColumnSet(column, PointerGetDatum(value));
}

/* An optional id among the arguments, or else the setting's. */
void
EsColumnSetId(EsColumn *column, FunctionCallInfo fcinfo, int arg, text *setting, const char *what)
{
	if (!PG_ARGISNULL(arg))
	{
		setting = PG_GETARG_TEXT_PP(arg);
		EsCheckText(setting, what);
		if (VARSIZE_ANY_EXHDR(setting) == 0)
			setting = NULL;
	}
	EsColumnSetText(column, setting);
}

void
EsArgRequire(bool isnull, const char *what)
{
	if (isnull)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", what)));
}

/* A column that may not hold nulls. */
void
EsColumnRefuseNulls(const EsColumn *column, uint32 n, const char *what)
{
	for (uint32 i = 0; column->nulls != NULL && i < n; i++)
	{
		if (column->nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("%s must not contain nulls", what)));
	}
}

/*
 * An array argument becomes a column; returns its length.  The first array of a
 * batch, the types, may have any (n is -1); the others must agree.
 */
int
EsColumnSetArray(EsColumn *column, int n, FunctionCallInfo fcinfo, int arg,
				 bool required, const char *what)
{
	ArrayType  *array;
	Oid			type;
	int			count;

	if (PG_ARGISNULL(arg))
	{
		EsArgRequire(required, what);
		return n;
	}
	array = PG_GETARG_ARRAYTYPE_P(arg);
	type = ARR_ELEMTYPE(array);
	if (ARR_NDIM(array) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("%s must be a one-dimensional array", what)));
	column->constant = false;
	switch (type)
	{
		case UUIDOID:
			deconstruct_array(array, type, UUID_LEN, false, TYPALIGN_CHAR,
							  &column->values, &column->nulls, &count);
			break;
		case INT8OID:
			deconstruct_array(array, type, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE,
							  &column->values, &column->nulls, &count);
			break;
		case TIMESTAMPTZOID:
			deconstruct_array(array, type, sizeof(TimestampTz), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE,
							  &column->values, &column->nulls, &count);
			break;
		default:
			deconstruct_array(array, type, -1, false, TYPALIGN_INT,
							  &column->values, &column->nulls, &count);
	}
	if (n >= 0 && count != n)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("arrays of a batch must have the same length"),
				 errdetail("The first has %d elements, but there are %d %s.", n, count, what)));
	if (required)
		EsColumnRefuseNulls(column, count, what);
	return count;
}

/* Every value of a column of text is a good name. */
void
EsColumnCheckNames(EsColumn *column, uint32 n, const char *what)
{
	for (uint32 i = 0; column->values != NULL && i < n; i++)
	{
		if (column->nulls == NULL || !column->nulls[i])
		{
			column->values[i] = PointerGetDatum(DatumGetTextPP(column->values[i]));
			EsCheckName((text *) DatumGetPointer(column->values[i]), what);
		}
	}
}

/* A batch has rows, but not too many. */
void
EsBatchCheckSize(uint32 n, const char *what)
{
	if (n == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a batch must have at least one %s", what)));
	if (n > ES_BATCH_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("a batch must not have more than %d %ss", ES_BATCH_MAX, what)));
}
