/* The program whose writes are audited: stamps block after block of a ring in a file or on a disk.
 *
 *   writer FILE BLOCKS    epoch from STANDFAST_EPOCH, node from STANDFAST_NODE
 *
 * Each block of 4096 bytes says who wrote it:
 *
 *   0 magic | 8 epoch | 16 number | 24 last number that its epoch found at its start | 32 node
 *
 * all little-endian, 64 bits, repeated in each 512 bytes so that a torn block shows. Block number N
 * lies at place N mod BLOCKS. A new epoch begins with APART blocks right after the last one it
 * found: a write of an earlier owner that arrives late falls upon them, and shows. O_DIRECT and
 * O_DSYNC, so that each number is on the disk before the next is written. Every STIR blocks a small
 * file is made, renamed and removed, to keep the file system's journal busy, if there is one.
 *
 * The ring must be as long as it will ever be, without holes: the file system has nothing left to
 * decide when a block is written.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC 0x7265746972576653ull
#define BLOCK 4096
#define APART 32
#define STIR 25
#define PAUSE_US 5000

struct stamp {
	uint64_t magic, epoch, number, found, node;
};

static unsigned char *block;

static int fail(const char *what)
{
	fprintf(stderr, "writer: %s: %s\n", what, strerror(errno));
	return 1;
}

static uint64_t number_at(int file, uint64_t place)
{
	struct stamp stamp;
	if (pread(file, block, BLOCK, place * BLOCK) != BLOCK)
		exit(fail("read"));
	memcpy(&stamp, block, sizeof stamp);
	return stamp.magic == MAGIC ? stamp.number : 0;
}

/* Numbers rise from the first place to the newest block; behind it are those of the lap before. */
static uint64_t newest(int file, uint64_t blocks)
{
	uint64_t first = number_at(file, 0), low = 0, high = blocks;
	while (high - low > 1) {
		uint64_t middle = (low + high) / 2;
		*(number_at(file, middle) > first ? &low : &high) = middle;
	}
	return number_at(file, low);
}

static int put(int file, uint64_t blocks, const struct stamp *stamp)
{
	for (int at = 0; at < BLOCK; at += 512)
		memcpy(block + at, stamp, sizeof *stamp);
	return pwrite(file, block, BLOCK, stamp->number % blocks * BLOCK) == BLOCK;
}

static int stir(const char *ring, uint64_t number)
{
	char first[4096], second[4096];
	snprintf(first, sizeof first, "%s.%llu", ring, (unsigned long long)(number % 7));
	snprintf(second, sizeof second, "%s.old", ring);
	int file = open(first, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	if (file < 0)
		return 0;
	int done = write(file, first, strlen(first)) > 0;
	return (close(file) == 0) & done & (rename(first, second) == 0);
}

int main(int count, char **words)
{
	const char *epoch = getenv("STANDFAST_EPOCH"), *node = getenv("STANDFAST_NODE");
	if (count != 3 || !epoch || !node)
		return fail("usage: writer FILE BLOCKS, with STANDFAST_EPOCH and STANDFAST_NODE");
	uint64_t blocks = strtoull(words[2], NULL, 10);
	int file = open(words[1], O_RDWR | O_DIRECT | O_DSYNC);
	if (file < 0 || posix_memalign((void **)&block, BLOCK, BLOCK))
		return fail(words[1]);
	struct stat what;
	if (fstat(file, &what))
		return fail("look at the ring");
	memset(block, 0, BLOCK);
	struct stamp stamp = { MAGIC, strtoull(epoch, NULL, 10), newest(file, blocks), 0, 0 };
	memset(block, 0, BLOCK);
	stamp.found = stamp.number;
	memcpy(&stamp.node, node, strnlen(node, sizeof stamp.node));
	for (;;) {
		stamp.number++;
		if (!put(file, blocks, &stamp))
			return fail("write");
		if (stamp.number - stamp.found <= APART)
			continue;
		if (S_ISREG(what.st_mode) && stamp.number % STIR == 0 && !stir(words[1], stamp.number))
			return fail("stir");
		usleep(PAUSE_US);
	}
}
