/*
 * snapshot_tree.c
 *		A JSON value that changes: the state of a built-in reducer.
 *
 * A jsonb is written once and never changed; to change one member is to write
 * all of it anew, and a fold would do that for each event.  So a fold's state is
 * a tree of nodes: an object is a hash table of its members, anything else is a
 * JsonbValue.  A change costs what it changes; the jsonb is written once, at the
 * end.
 *
 * What comes in stays flat until somebody looks into it: a state from a
 * snapshot is one node, and only the objects on the way to a change become
 * tables.  Arrays are never looked into, for RFC 7396 replaces them as a whole.
 *
 * A node owns what its value points to and what is below it, all in one memory
 * context, and frees what is replaced, so that a fold over many events needs no
 * more memory than its state.
 */
#include "snapshot.h"

#include "common/hashfn.h"
#include "miscadmin.h"
#include "utils/memutils.h"

typedef struct MemberKey
{
	const char *data;
	int			length;
} MemberKey;

typedef struct Member
{
	MemberKey	key;			/* owned */
	EsNode	   *node;
	uint32		hash;
	char		status;
} Member;

static inline uint32
hash_key(MemberKey key)
{
	return hash_bytes((const unsigned char *) key.data, key.length);
}

static inline bool
same_key(MemberKey a, MemberKey b)
{
	return a.length == b.length && memcmp(a.data, b.data, a.length) == 0;
}

#define SH_PREFIX EsMembers
#define SH_ELEMENT_TYPE Member
#define SH_KEY_TYPE MemberKey
#define SH_KEY key
#define SH_HASH_KEY(tb, key) hash_key(key)
#define SH_EQUAL(tb, a, b) same_key(a, b)
#define SH_STORE_HASH
#define SH_GET_HASH(tb, a) (a)->hash
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

/* A copy that the context owns. */
static void *
copy_bytes(MemoryContext context, const void *data, Size size)
{
	void	   *copy = MemoryContextAllocHuge(context, Max(size, 1));

	memcpy(copy, data, size);
	return copy;
}

EsNode *
EsNodeMake(MemoryContext context)
{
	EsNode	   *node = MemoryContextAllocZero(context, sizeof(EsNode));

	node->context = context;
	return node;
}

static void
free_value(const JsonbValue *value)
{
	switch (value->type)
	{
		case jbvString:
			pfree(value->val.string.val);
			break;
		case jbvNumeric:
			pfree(value->val.numeric);
			break;
		case jbvBinary:
			pfree(value->val.binary.data);
			break;
		default:
			break;
	}
}

/* Free what a node has and make it nothing. */
static void
clear(EsNode *node)
{
	check_stack_depth();
	if (node->kind == ES_NODE_VALUE)
		free_value(&node->value);
	else if (node->kind == ES_NODE_OBJECT)
	{
		EsMembers_iterator iterator;
		Member	   *member;

		EsMembers_start_iterate(node->members, &iterator);
		while ((member = EsMembers_iterate(node->members, &iterator)) != NULL)
		{
			clear(member->node);
			pfree(member->node);
			pfree(unconstify(char *, member->key.data));
		}
		EsMembers_destroy(node->members);
		node->members = NULL;
	}
	node->kind = ES_NODE_NOTHING;
}

/* Make a node a copy of a value; nothing of the value may be the node's own. */
void
EsNodeSet(EsNode *node, const JsonbValue *value)
{
	clear(node);
	node->value = *value;
	switch (value->type)
	{
		case jbvString:
			node->value.val.string.val = copy_bytes(node->context, value->val.string.val, value->val.string.len);
			break;
		case jbvNumeric:
			node->value.val.numeric = copy_bytes(node->context, value->val.numeric, VARSIZE_ANY(value->val.numeric));
			break;
		case jbvBinary:
			node->value.val.binary.data = copy_bytes(node->context, value->val.binary.data, value->val.binary.len);
			break;
		case jbvNull:
		case jbvBool:
			break;
		default:
			elog(ERROR, "unexpected jsonb value type: %d", (int) value->type);
	}
	node->kind = ES_NODE_VALUE;
}

/* A jsonb as a value, which points into it. */
void
EsJsonbValueSet(JsonbValue *value, const Jsonb *jsonb)
{
	if (JsonbExtractScalar(unconstify(JsonbContainer *, &jsonb->root), value))
		return;
	value->type = jbvBinary;
	value->val.binary.data = unconstify(JsonbContainer *, &jsonb->root);
	value->val.binary.len = VARSIZE(jsonb) - VARHDRSZ;
}

void
EsNodeSetJsonb(EsNode *node, const Jsonb *jsonb)
{
	JsonbValue	value;

	EsJsonbValueSet(&value, jsonb);
	EsNodeSet(node, &value);
}

/* An object's member, which is made, of nothing, if there is none. */
static EsNode *
member_of(EsNode *node, const char *key, int length)
{
	MemberKey	sought = {key, length};
	bool		found;
	Member	   *member = EsMembers_insert(node->members, sought, &found);

	if (!found)
	{
		member->key.data = copy_bytes(node->context, key, length);
		member->node = EsNodeMake(node->context);
	}
	return member->node;
}

static bool
is_flat_object(const JsonbValue *value)
{
	return value->type == jbvBinary && JsonContainerIsObject(value->val.binary.data);
}

bool
EsNodeIsObject(const EsNode *node)
{
	return node->kind == ES_NODE_OBJECT || (node->kind == ES_NODE_VALUE && is_flat_object(&node->value));
}

/* Flat JSON becomes a table of members, which are flat themselves. */
static void
open_object(EsNode *node, const JsonbValue *flat)
{
	JsonbIterator *iterator = JsonbIteratorInit(flat->val.binary.data);
	JsonbIteratorToken token;
	JsonbValue	item;
	EsNode	   *member = NULL;

	while ((token = JsonbIteratorNext(&iterator, &item, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			member = member_of(node, item.val.string.val, item.val.string.len);
		else if (token == WJB_VALUE)
			EsNodeSet(member, &item);
	}
}

/* See to it that a node is an object with members: what it has been, if that is one, or else an empty one. */
void
EsNodeMakeObject(EsNode *node)
{
	JsonbValue	flat;

	if (node->kind == ES_NODE_OBJECT)
		return;
	flat.type = jbvNull;
	if (node->kind == ES_NODE_VALUE && is_flat_object(&node->value))
	{
		flat = node->value;
		node->kind = ES_NODE_NOTHING;
	}
	clear(node);
	node->members = EsMembers_create(node->context, 2, NULL);
	node->kind = ES_NODE_OBJECT;
	if (flat.type != jbvNull)
	{
		open_object(node, &flat);
		free_value(&flat);
	}
}

/* A member of a node that becomes an object if it is none. */
EsNode *
EsNodeMember(EsNode *node, const char *key, int length)
{
	EsNodeMakeObject(node);
	return member_of(node, key, length);
}

static void
remove_member(EsNode *node, const char *key, int length)
{
	Member	   *member = EsMembers_lookup(node->members, (MemberKey) {key, length});
	EsNode	   *gone;
	const char *gone_key;

	if (member == NULL)
		return;
	gone = member->node;
	gone_key = member->key.data;
	EsMembers_delete_item(node->members, member);
	clear(gone);
	pfree(gone);
	pfree(unconstify(char *, gone_key));
}

/* MergePatch of RFC 7396, section 2. */
void
EsNodeMergePatch(EsNode *node, const JsonbValue *patch)
{
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue	key = {0};
	JsonbValue	item;

	check_stack_depth();
	if (!is_flat_object(patch))
	{
		EsNodeSet(node, patch);
		return;
	}
	EsNodeMakeObject(node);
	iterator = JsonbIteratorInit(patch->val.binary.data);
	while ((token = JsonbIteratorNext(&iterator, &item, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			key = item;
		else if (token == WJB_VALUE && item.type == jbvNull)
			remove_member(node, key.val.string.val, key.val.string.len);
		else if (token == WJB_VALUE)
			EsNodeMergePatch(member_of(node, key.val.string.val, key.val.string.len), &item);
	}
}

static JsonbValue *
push_object(JsonbParseState **parse, const EsNode *node)
{
	EsMembers_iterator iterator;
	Member	   *member;

	check_stack_depth();
	pushJsonbValue(parse, WJB_BEGIN_OBJECT, NULL);
	EsMembers_start_iterate(node->members, &iterator);
	while ((member = EsMembers_iterate(node->members, &iterator)) != NULL)
	{
		JsonbValue	key;

		if (member->node->kind == ES_NODE_NOTHING)
			continue;
		key.type = jbvString;
		key.val.string.val = unconstify(char *, member->key.data);
		key.val.string.len = member->key.length;
		pushJsonbValue(parse, WJB_KEY, &key);
		if (member->node->kind == ES_NODE_OBJECT)
			push_object(parse, member->node);
		else
			pushJsonbValue(parse, WJB_VALUE, &member->node->value);
	}
	return pushJsonbValue(parse, WJB_END_OBJECT, NULL);
}

/* The value as jsonb, in the current memory context; NULL for nothing.  The tree stays as it is. */
Jsonb *
EsNodeToJsonb(const EsNode *node)
{
	JsonbParseState *parse = NULL;
	JsonbValue	value;

	switch (node->kind)
	{
		case ES_NODE_OBJECT:
			return JsonbValueToJsonb(push_object(&parse, node));
		case ES_NODE_VALUE:
			value = node->value;
			return JsonbValueToJsonb(&value);
		default:
			return NULL;
	}
}
