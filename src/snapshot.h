/*
 * snapshot.h
 *		Folding a stream's events to its state: reducers, folds, snapshots.
 */
#ifndef ES_SNAPSHOT_H
#define ES_SNAPSHOT_H

#include "es_pg.h"

#include "access/tupdesc.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"
#include "utils/uuid.h"

#include "stream.h"

#define ES_REDUCER_MAX		1536	/* bytes of a reducer's text */

/* A JSON value in the making. */
typedef enum EsNodeKind
{
	ES_NODE_NOTHING,			/* no value, not even null */
	ES_NODE_VALUE,				/* a scalar, or flat JSON that nobody has looked into */
	ES_NODE_OBJECT				/* its members are nodes */
} EsNodeKind;

struct EsMembers_hash;

typedef struct EsNode
{
	MemoryContext context;		/* owns the node and everything below it */
	EsNodeKind	kind;
	JsonbValue	value;			/* the node's own copy */
	struct EsMembers_hash *members;
} EsNode;

/* snapshot_tree.c */
extern EsNode *EsNodeMake(MemoryContext context);
extern void EsNodeSet(EsNode *node, const JsonbValue *value);
extern void EsNodeSetJsonb(EsNode *node, const Jsonb *jsonb);
extern bool EsNodeIsObject(const EsNode *node);
extern void EsNodeMakeObject(EsNode *node);
extern EsNode *EsNodeMember(EsNode *node, const char *key, int length);
extern void EsNodeMergePatch(EsNode *node, const JsonbValue *patch);
extern Jsonb *EsNodeToJsonb(const EsNode *node);
extern void EsJsonbValueSet(JsonbValue *value, const Jsonb *jsonb);

/* An event as es_event has it; what is asked for is detoasted in place. */
typedef struct EsEventRow
{
	Datum		values[Natts_es_event];
	bool		nulls[Natts_es_event];
} EsEventRow;

/* What a reducer looks at in an event: a path into its data or metadata, or another column. */
typedef struct EsOperand EsOperand;
typedef void (*EsOperandVisitor) (const JsonbValue *value, void *arg);

/* snapshot_path.c */
extern EsOperand *EsOperandParse(const char *string, const char *option);
extern void EsOperandEach(const EsOperand *operand, EsEventRow *event, EsOperandVisitor visit, void *arg);
extern bool EsOperandFirst(const EsOperand *operand, EsEventRow *event, JsonbValue *value);

/* A built-in reducer with its arguments. */
typedef struct EsBuiltin EsBuiltin;

/* snapshot_builtin.c */
extern EsBuiltin *EsBuiltinParse(const char *name, Jsonb *arguments);
extern bool EsBuiltinKnown(const char *name);
extern uint32 EsBuiltinVersion(const EsBuiltin *builtin);
extern void EsBuiltinBegin(const EsBuiltin *builtin, EsNode *state);
extern void EsBuiltinApply(const EsBuiltin *builtin, EsNode *state, EsEventRow *event);

/* What folds: a built-in, or a function (state jsonb, event es_event) returns jsonb. */
typedef struct EsReducer
{
	char	   *name;			/* its one canonical text */
	EsBuiltin  *builtin;		/* NULL: a function */
	FmgrInfo	function;
	pg_uuid_t	identity;		/* before the fold; where snapshots are asked for */
} EsReducer;

/* snapshot_reducer.c */
extern EsReducer *EsReducerGet(const text *reducer);
extern Oid	EsEventType(void);
extern void EsReducerIdentity(const EsReducer *reducer, pg_uuid_t *identity);

/* A fold in progress. */
typedef struct EsFold
{
	const EsReducer *reducer;
	MemoryContext context;		/* the fold, and its state */
	text	   *stream;
	int64		version;		/* of the newest event in the state */
	int64		events;			/* folded so far */
	EsNode	   *tree;			/* the state of a built-in */
	Datum		state;			/* that of a function; 0 is null */
	TupleDesc	desc;			/* es_event, once a row had to be made */
} EsFold;

/* snapshot_fold.c */
extern EsFold *EsFoldBegin(const EsReducer *reducer, const text *stream, const Jsonb *state, int64 version);
extern void EsFoldEvent(EsFold *fold, EsEventRow *event, Datum row);
extern Jsonb *EsFoldState(const EsFold *fold);

/* A snapshot that was found. */
typedef struct EsSnapshot
{
	int64		version;
	EsPosition	position;		/* of the event with that version */
	Jsonb	   *state;			/* NULL is one, too */
} EsSnapshot;

/* When es_state takes a snapshot. */
typedef struct EsSnapshotPolicy
{
	int64		every;			/* events */
	int64		keep;			/* snapshots of a stream; -1: all */
} EsSnapshotPolicy;

/* snapshot_store.c */
extern bool EsSnapshotFind(const EsStream *stream, const EsReducer *reducer, int64 lowest, int64 highest,
						   Snapshot snapshot, EsSnapshot *found);
extern bool EsSnapshotPolicyFind(const text *category, const EsReducer *reducer, Snapshot snapshot,
								 EsSnapshotPolicy *policy);
extern void EsSnapshotStore(const EsStream *stream, const EsReducer *reducer, const EsSnapshot *taken);
extern bool EsSnapshotTryStore(const EsStream *stream, const EsReducer *reducer, const EsSnapshot *taken,
							   int64 keep);

#endif							/* ES_SNAPSHOT_H */
