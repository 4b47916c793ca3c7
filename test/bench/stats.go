package main

import (
	"math/rand/v2"
	"slices"
)

// summary of many measurements: the figure, what chance may have made of it,
// and the least and most that was measured.
type summary struct {
	Value float64 `json:"value"`
	// Low and High hold the figure of 95 in 100 repetitions, by the bootstrap:
	// samples of the samples.
	Low     float64 `json:"low"`
	High    float64 `json:"high"`
	Min     float64 `json:"min"`
	Max     float64 `json:"max"`
	Samples int     `json:"samples"`
}

// statistic of sorted values.
type statistic func(sorted []float64) float64

func median(sorted []float64) float64 {
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

func p99(sorted []float64) float64 { return sorted[len(sorted)*99/100] }

const resamplings = 2000

func summarize(values []float64, of statistic) summary {
	sorted := slices.Sorted(slices.Values(values))
	chance := rand.New(rand.NewPCG(1, 2)) // the same values, the same summary
	figures, sample := make([]float64, resamplings), make([]float64, len(values))
	for i := range figures {
		for k := range sample {
			sample[k] = sorted[chance.IntN(len(sorted))]
		}
		slices.Sort(sample)
		figures[i] = of(sample)
	}
	slices.Sort(figures)
	return summary{
		Value: of(sorted), Low: figures[resamplings*25/1000], High: figures[resamplings*975/1000],
		Min: sorted[0], Max: sorted[len(sorted)-1], Samples: len(values),
	}
}

func column[T any](rows []T, of func(T) float64) []float64 {
	values := make([]float64, len(rows))
	for i, row := range rows {
		values[i] = of(row)
	}
	return values
}
