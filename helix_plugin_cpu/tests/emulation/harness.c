/* Runs one kernel on another machine: a call comes in with the memory that it may touch, and that memory goes back.

   A call: the number of blocks, of arguments and of bytes of scratch; each block's address, its size, whether it holds
   words of 64 bits, and its bytes; for each argument whether it is a float; the arguments, one word each. An argument
   or a word within a block is an address there, and is moved to where the block lies here. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern void entry(int64_t team) __asm__(KERNEL);

static void take(void *into, size_t size) {
    if (fread(into, 1, size, stdin) != size) exit(feof(stdin) ? 0 : 3);
}

static void *aligned(size_t size, uintptr_t like) {
    char *block = aligned_alloc(4096, (size + 3 * 4096) / 4096 * 4096);
    if (!block) exit(4);
    return block + like % 4096;
}

static int64_t blocks, *from, *size, *holds_words;
static char **here;

/* From an address there to the one here, or back; every other number stays as it is. */
static int64_t moved(int64_t word, int back) {
    for (int64_t i = 0; i < blocks; i++) {
        int64_t source = back ? (int64_t)(intptr_t)here[i] : from[i];
        if (word >= source && word <= source + size[i]) return word - source + (back ? from[i] : (int64_t)(intptr_t)here[i]);
    }
    return word;
}

static void move_words(int64_t block, int back) {
    int64_t *words = (int64_t *)here[block];
    for (int64_t i = 0; holds_words[block] && i < size[block] / 8; i++) words[i] = moved(words[i], back);
}

int main(void) {
    for (;;) {
        int64_t head[3];
        take(head, sizeof head);
        int64_t arguments = head[1];
        blocks = head[0];
        from = calloc(blocks + 1, 8), size = calloc(blocks + 1, 8), holds_words = calloc(blocks + 1, 8);
        here = calloc(blocks + 1, sizeof *here);
        for (int64_t i = 0; i < blocks; i++) {
            take(&from[i], 8);
            take(&size[i], 8);
            take(&holds_words[i], 8);
            here[i] = aligned(size[i], from[i]);
            take(here[i], size[i]);
        }
        int64_t *floats = calloc(arguments + 1, 8), *words = calloc(arguments + 1, 8);
        take(floats, 8 * arguments);
        take(words, 8 * arguments);
        for (int64_t a = 0; a < arguments; a++)
            if (!floats[a]) words[a] = moved(words[a], 0);
        for (int64_t i = 0; i < blocks; i++) move_words(i, 0);
        int64_t team[5] = {0, 1, (int64_t)(intptr_t)words, 8 * arguments, 0};
        words[0] = (int64_t)(intptr_t)&team[4];
        words[2] = (int64_t)(intptr_t)aligned(head[2], 0);
        entry((int64_t)(intptr_t)team);
        for (int64_t i = 0; i < blocks; i++) {
            move_words(i, 1);
            fwrite(here[i], 1, size[i], stdout);
        }
        fflush(stdout);
    }
}
