/*
 * columns.h
 *		The rows of a batch as columns: what append and publish have in common
 *		between their arguments and their slots.
 */
#ifndef ES_COLUMNS_H
#define ES_COLUMNS_H

#include "es_pg.h"

/* One column of a batch: a value a row, or one for all, or none at all. */
typedef struct EsColumn
{
	Datum	   *values;			/* NULL: null for all */
	bool	   *nulls;			/* NULL: no nulls among the values */
	bool		constant;		/* values[0] is everybody's */
} EsColumn;

/* The value of one row's column. */
static inline Datum
EsColumnValue(const EsColumn *column, uint32 i, bool *isnull)
{
	uint32		j = column->constant ? 0 : i;

	*isnull = column->values == NULL || (column->nulls != NULL && column->nulls[j]);
	return *isnull ? (Datum) 0 : column->values[j];
}

extern void EsColumnSet(EsColumn *column, Datum value);
extern void EsColumnSetText(EsColumn *column, const text *value);
extern void EsColumnSetId(EsColumn *column, FunctionCallInfo fcinfo, int arg, text *setting, const char *what);
extern int	EsColumnSetArray(EsColumn *column, int n, FunctionCallInfo fcinfo, int arg,
							 bool required, const char *what);
extern void EsColumnRefuseNulls(const EsColumn *column, uint32 n, const char *what);
extern void EsColumnCheckNames(EsColumn *column, uint32 n, const char *what);
extern void EsBatchCheckSize(uint32 n, const char *what);
extern void EsArgRequire(bool isnull, const char *what);

#endif							/* ES_COLUMNS_H */
