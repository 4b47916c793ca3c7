package main

import (
	"math/rand/v2"
	"slices"
)

// summary of many measurements: the figure, what chance may have made of it,
// and the least and most that one of them was.
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

const resamplings = 2000

// summarize the rows by a figure of all of them; each is one row's own.
func summarize[T any](rows []T, each func(T) float64, figure func([]T) float64) summary {
	chance := rand.New(rand.NewPCG(1, 2)) // the same rows, the same summary
	figures, sample := make([]float64, resamplings), make([]T, len(rows))
	for i := range figures {
		for k := range sample {
			sample[k] = rows[chance.IntN(len(rows))]
		}
		figures[i] = figure(sample)
	}
	slices.Sort(figures)
	values := column(rows, each)
	return summary{
		Value: figure(rows), Low: figures[resamplings*25/1000], High: figures[resamplings*975/1000],
		Min: slices.Min(values), Max: slices.Max(values), Samples: len(rows),
	}
}

// single is a figure that was measured once.
func single(v float64) summary { return summary{v, v, v, v, v, 1} }

// medianOf is the figure for which half of the rows' own are less.
func medianOf[T any](each func(T) float64) func([]T) float64 {
	return func(rows []T) float64 { return quantile(column(rows, each), 0.5) }
}

// quantile of the values, between two of them in proportion.
func quantile(values []float64, q float64) float64 {
	slices.Sort(values)
	at := q * float64(len(values)-1)
	below := int(at)
	above := min(below+1, len(values)-1)
	return values[below] + (values[above]-values[below])*(at-float64(below))
}

func column[T any](rows []T, of func(T) float64) []float64 {
	values := make([]float64, len(rows))
	for i, row := range rows {
		values[i] = of(row)
	}
	return values
}
