#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

// Each test of POSIX threads prints one line that does not depend on timing.
enum { THREADS = 8, ROUNDS = 2000 };

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static pthread_rwlock_t rwlock = PTHREAD_RWLOCK_INITIALIZER;
static pthread_barrier_t barrier;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key;
static sem_t sem;
static long counter, turn;
static atomic_long atomics, destroyed, onces, cleaned;
static _Thread_local long local;

static void *count(void *arg)
{
	for (int i = 0; i < ROUNDS; i++) {
		pthread_mutex_lock(&mutex);
		counter++;
		pthread_mutex_unlock(&mutex);
		atomics++;
		local++;
	}
	return (void *)local;
}

static void *take_turns(void *arg)
{
	long me = (long)arg;
	for (int i = 0; i < 50; i++) {
		pthread_mutex_lock(&mutex);
		while (turn % THREADS != me)
			pthread_cond_wait(&cond, &mutex);
		turn++;
		pthread_cond_broadcast(&cond);
		pthread_mutex_unlock(&mutex);
	}
	return NULL;
}

static void *read_write(void *arg)
{
	for (int i = 0; i < ROUNDS / 4; i++) {
		if ((long)arg % 4 == 0) {
			pthread_rwlock_wrlock(&rwlock);
			counter++;
			counter++;
		} else {
			pthread_rwlock_rdlock(&rwlock);
			if (counter % 2)
				abort();
		}
		pthread_rwlock_unlock(&rwlock);
	}
	return NULL;
}

static void *meet(void *arg)
{
	for (int i = 0; i < 20; i++) {
		atomics++;
		pthread_barrier_wait(&barrier);
		if (atomics < (i + 1) * THREADS)
			abort();
		pthread_barrier_wait(&barrier);
	}
	return NULL;
}

static void destroy(void *p) { destroyed += (long)p; }
static void init_once(void) { onces++; }

static void *keyed(void *arg)
{
	pthread_once(&once, init_once);
	pthread_setspecific(key, (void *)1);
	return NULL;
}

static void clean(void *p) { cleaned++; }

static void *cancelled(void *arg)
{
	pthread_cleanup_push(clean, NULL);
	sem_post(&sem);
	for (;;) {
		struct timespec t = {1000, 0};
		nanosleep(&t, NULL);
	}
	pthread_cleanup_pop(0);
	return NULL;
}

static long all(void *(*f)(void *))
{
	pthread_t t[THREADS];
	long sum = 0;
	for (long i = 0; i < THREADS; i++)
		if (pthread_create(&t[i], NULL, f, (void *)i)) {
			perror("pthread_create");
			exit(1);
		}
	for (int i = 0; i < THREADS; i++) {
		void *r;
		pthread_join(t[i], &r);
		sum += (long)r;
	}
	return sum;
}

static void kinds_of_mutexes(void)
{
	pthread_mutexattr_t a;
	pthread_mutex_t m;
	pthread_mutexattr_init(&a);
	pthread_mutexattr_settype(&a, PTHREAD_MUTEX_RECURSIVE);
	pthread_mutex_init(&m, &a);
	printf("recursive: %d %d\n", pthread_mutex_lock(&m), pthread_mutex_lock(&m));
	pthread_mutexattr_settype(&a, PTHREAD_MUTEX_ERRORCHECK);
	pthread_mutex_init(&m, &a);
	pthread_mutex_lock(&m);
	printf("error-checking: %s\n", strerror(pthread_mutex_lock(&m)));
	pthread_mutexattr_init(&a);
	pthread_mutexattr_setprotocol(&a, PTHREAD_PRIO_INHERIT);
	if (pthread_mutex_init(&m, &a) == 0) {
		mutex = m;
		counter = 0;
		all(count);
		printf("priority-inheriting: %ld\n", counter);
	}
	pthread_mutex_t plain = PTHREAD_MUTEX_INITIALIZER;
	pthread_mutex_lock(&plain);
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	t.tv_nsec += 5000000;
	if (t.tv_nsec >= 1000000000) {
		t.tv_sec++;
		t.tv_nsec -= 1000000000;
	}
	printf("timed: %s\n", strerror(pthread_mutex_timedlock(&plain, &t)));
}

int main(void)
{
	sem_init(&sem, 0, 0);
	pthread_barrier_init(&barrier, NULL, THREADS);
	pthread_key_create(&key, destroy);
	long sum = all(count);
	printf("mutex: %ld, atomic: %ld, thread-local: %ld\n", counter, (long)atomics, sum);
	all(take_turns);
	printf("condition: %ld\n", turn);
	counter = 0;
	all(read_write);
	printf("rwlock: %ld\n", counter);
	atomics = 0;
	all(meet);
	printf("barrier: %ld\n", (long)atomics);
	all(keyed);
	printf("once: %ld, keys: %ld\n", (long)onces, (long)destroyed);
	pthread_t t;
	void *r;
	pthread_create(&t, NULL, cancelled, NULL);
	sem_wait(&sem);
	pthread_cancel(t);
	pthread_join(t, &r);
	printf("cancelled: %d, cleaned up: %ld\n", r == PTHREAD_CANCELED, (long)cleaned);
	kinds_of_mutexes();
	return 0;
}
